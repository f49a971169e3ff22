"""Fetching images: real TLS servers on the loopback interface, real sockets, real redirects."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme

from api.http import fetch
from api.http.fetch import Fetcher, check_url, is_public
from runnables.errors import InvalidInput, PayloadTooLarge
from runnables.settings import Settings

PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "239.1.1.1",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::1",
    "::7f00:1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fec0::1",
    "ff0e::1",
    "2001::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example/a.png",
        "ftp://images.example/a.png",
        "file:///etc/passwd",
        "//images.example/a.png",
        "images.example/a.png",
        "https://",
        "https://user@images.example/a.png",
        "https://images.example@evil.example/a.png",
        "https://evil.example/?images.example",
        "https://evil.example#images.example",
        "https://images.example.evil.example/",
        "https://images.example:8443/a.png",
        "https://images.example:99999/a.png",
        "https://[::1/a.png",
        "https://images.example/" + "a" * 3000,
        "",
    ],
)
def test_urls_that_may_not_be_called(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_url(url, "img", hosts={"images.example"})
    assert caught.value.loc == ("img",)


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example/a.png",
        "https://IMAGES.example:443/a.png",
        "https://images.example./a.png",
        "https://other.example:8443/a.png",
    ],
)
def test_urls_that_may_be_called(url: str) -> None:
    assert check_url(url, "img", hosts={"images.example", "other.example:8443"})


class Handler(BaseHTTPRequestHandler):
    """/a answers, /to/PLACE redirects there, /big never ends."""

    def do_GET(self) -> None:
        kind, _, rest = self.path[1:].partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
            return
        self.send_response(404 if kind == "none" else 200)
        self.end_headers()
        try:
            for _ in range(10_000 if kind == "big" else 1):
                self.wfile.write(b"an image" * (10_000 if kind == "big" else 1))
        except OSError:
            pass

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def port(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """A TLS server on the loopback interface, whose authority is trusted."""
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    fetch._tls.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    fetch._tls.cache_clear()


def get(url: str, port: int, **settings: object) -> bytes:
    hosts = f"localhost:{port}, 127.0.0.1:{port}, [::1]:{port}"
    given = {"fetch_hosts": hosts, "fetch_insecure": True, **settings}
    return asyncio.run(Fetcher(Settings(**given)).get(url, "img"))  # type: ignore[arg-type]


def test_an_image_is_fetched(port: int) -> None:
    assert get(f"https://localhost:{port}/a", port) == b"an image"


def test_redirects_are_followed_and_checked(port: int) -> None:
    start = f"https://localhost:{port}/to/"
    assert get(f"{start}/a", port) == b"an image"
    assert get(f"{start}https://127.0.0.1:{port}/a", port) == b"an image"
    for elsewhere in ("https://evil.example/a", "file:///etc/passwd", "https://localhost/a"):
        with pytest.raises(InvalidInput, match="img"):
            get(f"{start}{elsewhere}", port)
    assert get(f"{start}/to//to//a", port) == b"an image", "three times"
    with pytest.raises(InvalidInput, match="too often"):
        get(f"{start}/to//to//to//a", port)


def test_a_missing_image_and_one_without_end(port: int) -> None:
    with pytest.raises(InvalidInput, match="404"):
        get(f"https://localhost:{port}/none", port)
    with pytest.raises(PayloadTooLarge):
        get(f"https://localhost:{port}/big", port, max_body_mb=1)


def test_none_is_fetched_by_default(port: int) -> None:
    with pytest.raises(InvalidInput, match="SD_FETCH_HOSTS"):
        get(f"https://localhost:{port}/a", port, fetch_hosts="")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_allowed_name_that_leads_inside_is_not_connected_to(host: str) -> None:
    """The guard itself: nothing reaches a listening socket, by name or by address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.3)
        port = listening.getsockname()[1]
        with pytest.raises(InvalidInput, match="could not be fetched") as caught:
            get(f"https://{host}:{port}/a", port, fetch_insecure=False)
        with pytest.raises(TimeoutError):
            listening.accept()
    assert "127.0.0.1" not in caught.value.message
    causes = str(caught.value.__cause__)
    assert "not a public address" in causes, causes


def test_a_certificate_that_is_not_trusted(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    fetch._tls.cache_clear()
    with pytest.raises(InvalidInput, match="could not be fetched"):
        get(f"https://localhost:{port}/a", port)
