"""Which images of tasks are tried again, and which end the task at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from hosts.queue.worker.inputs import MAX_KEY, Reader, Unreachable
from runnables.errors import InvalidInput, PayloadTooLarge
from runnables.settings import Settings


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def host() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def reader(host: str, insecure: bool = True, code: str = "") -> Reader:
    class S3:
        def get_object(self, **_: str) -> Any:
            raise ClientError({"Error": {"Code": code}}, "GetObject")

    return Reader(S3(), {"bucket"}, Settings(fetch_hosts=host, fetch_insecure=insecure))


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_a_host_that_has_a_problem_is_asked_again(host: str, status: int) -> None:
    with pytest.raises(Unreachable):
        reader(host)._read(f"http://{host}/{status}", "image_link")


@pytest.mark.parametrize("status", [404, 403, 204])
def test_a_host_that_refuses_is_not(host: str, status: int) -> None:
    with pytest.raises(InvalidInput, match=f"status {status}"):
        reader(host)._read(f"http://{host}/{status}", "image_link")


def test_a_host_that_is_not_there_is_asked_again() -> None:
    with pytest.raises(Unreachable):
        reader("127.0.0.1:1")._read("http://127.0.0.1:1/a.png", "image_link")


def test_an_address_inside_the_network_is_not() -> None:
    with pytest.raises(InvalidInput, match="could not be fetched"):
        reader("127.0.0.1:1", insecure=False)._read("https://127.0.0.1:1/a.png", "image_link")


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState", "NoSuchKey"])
def test_an_object_that_cannot_be_read_is_not(code: str) -> None:
    with pytest.raises(InvalidInput, match=r"s3://bucket/a\.png"):
        reader("", code=code)._read("s3://bucket/a.png", "image_link")


def test_s3_that_has_a_problem_is_asked_again() -> None:
    with pytest.raises(ClientError):
        reader("", code="SlowDown")._read("s3://bucket/a.png", "image_link")


def test_an_object_that_is_too_large_is_not_read() -> None:
    large = reader("")
    large._s3 = SimpleNamespace(get_object=lambda **_: {"ContentLength": 30_000_001})
    large._fetcher.max_bytes = 30_000_000
    with pytest.raises(PayloadTooLarge, match="image_link is larger than 30 MB"):
        large._read("s3://bucket/a.png", "image_link")


def test_a_key_as_long_as_s3_allows_is_read_and_no_longer_one() -> None:
    with pytest.raises(InvalidInput, match="there is no s3://bucket"):
        reader("", code="NoSuchKey")._read(f"s3://bucket/{'k' * MAX_KEY}", "image_link")
    with pytest.raises(InvalidInput, match="the key is over 1024 bytes"):
        reader("", code="NoSuchKey")._read(f"s3://bucket/{'k' * (MAX_KEY + 1)}", "image_link")
