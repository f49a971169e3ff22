"""Webhooks, to a real receiver on the loopback interface."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from api.jobs import webhooks
from api.jobs.document import document
from api.jobs.job import Job
from api.jobs.store import Store
from tests.api.jobs.conftest import ASK, LONG, Client

Make = Callable[..., Client]
SECRET = "a secret"


class Receiver:
    """Answers with the given statuses, the last one for ever, and keeps what it got."""

    def __init__(self) -> None:
        self.statuses = [200]
        self.got: list[tuple[dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.got.append((headers, body))
                status = outer.statuses[min(len(outer.got), len(outer.statuses)) - 1]
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/told?x=1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait(self, count: int, timeout: float = 20) -> None:
        end = time.monotonic() + timeout
        while len(self.got) < count:
            assert time.monotonic() < end, f"{len(self.got)} of {count} deliveries"
            time.sleep(0.02)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


def served(make: Make, **settings: object) -> Client:
    return make(webhook_secret=SECRET, fetch_insecure=True, **settings)


def settled(tmp_path: Path) -> bool:
    """Whether no webhook is due any more, in a store of its own."""
    store = Store(tmp_path / "jobs")
    rows = store._connection.execute("SELECT webhook_at FROM jobs").fetchall()
    store.close()
    return all(row[0] is None for row in rows)


def test_the_document_comes_signed(make: Make, receiver: Receiver, tmp_path: Path) -> None:
    client = served(make)
    done = client.until(client.post(webhook=receiver.url)["id"], "succeeded")
    receiver.wait(1)
    headers, body = receiver.got[0]
    expected = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers["x-signature-256"] == f"sha256={expected}"
    assert abs(int(headers["x-webhook-timestamp"]) - time.time()) < 60
    assert json.loads(body) == done
    time.sleep(2 * webhooks.LOOK_S)
    assert len(receiver.got) == 1
    assert settled(tmp_path)


def test_failed_and_cancelled_jobs_are_told_too(make: Make, receiver: Receiver) -> None:
    client = served(make, jobs_active=1)
    client.post(id="busy", parameters=LONG, webhook=receiver.url)
    client.until("busy", "running")
    client.post(id="late", deadline_s=0.2, priority=0, webhook=receiver.url)
    client.until("late", "failed")
    client.http.delete("/jobs/busy")
    receiver.wait(2)
    told = {document["id"]: document["state"] for _, body in receiver.got
            for document in [json.loads(body)]}  # fmt: skip
    assert told == {"late": "failed", "busy": "cancelled"}


def test_a_receiver_that_fails_is_tried_again(
    make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(webhooks, "delay", lambda tries: 0.01)
    receiver.statuses = [500, 302, 204]
    client = served(make)
    client.post(webhook=receiver.url)
    receiver.wait(3)
    assert len({body for _, body in receiver.got}) == 1
    time.sleep(2 * webhooks.LOOK_S)
    assert len(receiver.got) == 3
    assert settled(tmp_path)


def test_one_that_never_answers_is_given_up(
    make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(webhooks, "delay", lambda tries: 0.01)
    monkeypatch.setattr(webhooks, "TRIES", 3)
    receiver.statuses = [503]
    client = served(make)
    client.post(webhook=receiver.url)
    receiver.wait(3)
    time.sleep(2 * webhooks.LOOK_S)
    assert len(receiver.got) == 3
    assert settled(tmp_path)


def test_what_is_due_survives_a_restart(make: Make, receiver: Receiver) -> None:
    receiver.statuses = [500]
    first = served(make)
    first.post(id="told-later", webhook=receiver.url)
    receiver.wait(1)
    first.api.stop()
    receiver.statuses = [200]
    seen = len(receiver.got)
    served(make)
    receiver.wait(seen + 1)
    assert json.loads(receiver.got[-1][1])["id"] == "told-later"


def test_delays_double_up_to_an_hour() -> None:
    delays = [webhooks.delay(tries) for tries in range(1, webhooks.TRIES)]
    assert all(0.75 * 2**i <= delays[i] <= 1.25 * 2**i for i in range(11))
    assert max(delays) <= 1.25 * 3600
    assert 4.5 * 3600 < sum(delays) < 8 * 3600  # however the dice fall


@pytest.mark.parametrize(
    "url", ["http://example.com/", "ftp://example.com/", "https://user:pass@example.com/", "x"]
)
def test_only_https_unless_the_operator_says_so(make: Make, url: str) -> None:
    client = make(webhook_secret=SECRET)
    answer = client.http.post("/jobs", json={"task": "txt2img", "parameters": ASK, "webhook": url})
    assert answer.status_code == 400
    assert answer.json()["detail"][0]["loc"] == ["webhook"]


@pytest.mark.parametrize("insecure", [False, True])
def test_private_addresses_are_not_called(make: Make, insecure: bool) -> None:
    """The address is checked on connecting, whatever name it hides behind."""
    client = make(webhook_secret=SECRET, fetch_insecure=insecure)
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(10 if insecure else 3 * webhooks.LOOK_S)
        port = inside.getsockname()[1]
        client.post(id="inside", webhook=f"https://localhost:{port}/")
        client.until("inside", "succeeded")
        if insecure:
            inside.accept()[0].close()
        else:
            with pytest.raises(TimeoutError):
                inside.accept()


def test_a_slow_receiver_does_not_delay_the_others(tmp_path: Path) -> None:
    """Its own webhooks wait, and so do those of a key whose receivers are all slow."""
    store = Store(tmp_path / "jobs")
    job = Job(id="", owner="one", task="txt2img", parameters={}, steps=1)
    hosts = [*["slow:8080"] * 9, *[f"h{number}" for number in range(20)]]
    for number, host in enumerate(hosts):
        url = f"https://{host}/hook?{number}"
        store.add(replace(job, id=str(number), webhook=url, webhook_at=float(number)))
    other = "https://SLOW:8080/hook"
    store.add(replace(job, id="other", owner="two", webhook=other, webhook_at=99.0))
    sender = webhooks.Webhooks(store, document, SECRET)
    under_way: list[Job] = []
    while claimed := asyncio.run(sender._next(under_way)):
        under_way.append(claimed)
    slow = [one for one in under_way if one.webhook and "slow" in one.webhook.lower()]
    assert [one.id for one in slow] == ["0", "1", "2", "3"]
    assert len(under_way) == webhooks.PER_OWNER
    under_way = [one for one in under_way if one not in slow]
    again = asyncio.run(sender._next(under_way))
    assert again is not None and again.id == "4", "there is room for the slow one again"
    store.close()
