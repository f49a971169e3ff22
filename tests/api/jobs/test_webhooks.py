"""Webhooks, to a real receiver on the loopback interface."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.http.gateway import Gateway
from api.http.keys import new
from api.jobs import webhooks
from api.jobs.document import document
from api.jobs.job import Job
from api.jobs.store import Store
from runnables.errors import ConfigurationError
from tests.api.jobs.conftest import ASK, LONG, Client

Make = Callable[..., Client]
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NEWER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


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

    def wait(self, count: int, timeout: float = 300) -> None:
        end = time.monotonic() + timeout
        while len(self.got) < count:
            assert time.monotonic() < end, f"{len(self.got)} of {count} deliveries"
            time.sleep(0.02)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

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
    event = Webhook(SECRET).verify(body, headers)
    assert (event["type"], event["timestamp"]) == ("job.succeeded", done["finished_at"])
    images = [{**image, "url": f"http://testserver{image['url']}"} for image in done["images"]]
    ended = {**done, "webhook_state": "waiting", "images": images}  # as it was when it was sent
    assert event["data"] == ended
    openai = OpenAI(api_key="none", webhook_secret=SECRET)
    openai.webhooks.verify_signature(body, headers)
    time.sleep(2 * webhooks.LOOK_S)
    assert len(receiver.got) == 1
    assert settled(tmp_path)


def test_its_images_have_the_address_of_the_proxy_that_the_job_came_through(
    make: Make, receiver: Receiver
) -> None:
    client = served(make, trusted_proxies="*")
    gateway = Gateway(client.api.settings)
    gateway.serve(client.api.app())
    client.http = TestClient(gateway.around(Starlette()))
    forwarded = {"proto": "https", "host": "images.example", "prefix": "/sd"}
    client.http.headers |= {f"x-forwarded-{name}": value for name, value in forwarded.items()}
    client.post(id="one", webhook=receiver.url)
    receiver.wait(1)
    (image,) = receiver.events()[0]["data"]["images"]
    assert image["url"] == "https://images.example/sd/jobs/one/images/0"


def test_failed_and_cancelled_jobs_are_told_too(make: Make, receiver: Receiver) -> None:
    client = served(make, jobs_active=1)
    client.post(id="busy", parameters=LONG, webhook=receiver.url)
    client.until("busy", "running")
    client.post(id="late", deadline_s=0.2, priority=0, webhook=receiver.url)
    client.until("late", "failed")
    client.http.delete("/jobs/busy")
    receiver.wait(2)
    told = {event["data"]["id"]: event["type"] for event in receiver.events()}
    assert told == {"late": "job.failed", "busy": "job.cancelled"}


def test_a_receiver_that_fails_is_tried_again(
    make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(webhooks, "delay", lambda tries: 0.01)
    receiver.statuses = [500, 302, 204]
    client, told = served(make), list[str]()
    parts = client.api.jobs._parts
    assert parts is not None
    parts.webhooks.observe = told.append
    client.post(webhook=receiver.url)
    receiver.wait(3)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    for headers, body in receiver.got:
        Webhook(SECRET).verify(body, headers)
    time.sleep(2 * webhooks.LOOK_S)
    assert len(receiver.got) == 3
    assert settled(tmp_path)
    assert told == ["retried", "retried", "delivered"]


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


def test_secrets_rotate(make: Make, receiver: Receiver) -> None:
    client = make(webhook_secret=f"{NEWER}, {SECRET}", fetch_insecure=True)
    client.post(webhook=receiver.url)
    receiver.wait(1)
    headers, body = receiver.got[0]
    for secret in (SECRET, NEWER):
        Webhook(secret).verify(body, headers)
        OpenAI(api_key="none", webhook_secret=secret).webhooks.verify_signature(body, headers)
    other = "whsec_" + base64.b64encode(bytes(32)).decode()
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(body, headers)
    with pytest.raises(InvalidWebhookSignatureError):
        OpenAI(api_key="none", webhook_secret=other).webhooks.verify_signature(body, headers)


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp"])
def test_id_and_timestamp_are_signed(make: Make, receiver: Receiver, changed: str) -> None:
    served(make).post(webhook=receiver.url)
    receiver.wait(1)
    headers, body = receiver.got[0]
    later = {"webhook-id": "msg_other", "webhook-timestamp": str(int(time.time()) + 60)}
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(SECRET).verify(body, {**headers, changed: later[changed]})


@pytest.mark.parametrize("secret", ["a secret", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "é" * 40])
def test_a_wrong_secret_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="openssl rand"):
        webhooks.keys(secret)


def until_delivery(client: Client, id: str, wanted: str) -> dict[str, Any]:
    end = time.monotonic() + 300
    while (found := client.get(id))["webhook_state"] != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found


@pytest.mark.parametrize(("status", "tries"), [(503, 2), (410, 1)])
def test_a_dead_one_is_listed_and_sent_again(
    make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, status: int, tries: int
) -> None:
    monkeypatch.setattr(webhooks, "delay", lambda tries: 0.01)
    monkeypatch.setattr(webhooks, "TRIES", 2)
    receiver.statuses = [status]
    client = served(make)
    client.post(id="dead", webhook=receiver.url)
    dead = until_delivery(client, "dead", "dead")
    assert (dead["webhook_error"], len(receiver.got)) == (f"it answered {status}", tries)
    client.post(id="without")
    client.until("without", "succeeded")

    def listed(delivery: str) -> list[str]:
        found = client.http.get(f"/jobs?webhook={delivery}").json()["jobs"]
        return [job["id"] for job in found]

    assert (listed("dead"), listed("delivered")) == (["dead"], [])
    receiver.statuses = [200]
    again = client.http.post("/jobs/dead/webhook")
    assert again.status_code == 202
    delivered = until_delivery(client, "dead", "delivered")
    assert delivered["webhook_error"] is None
    assert (listed("dead"), listed("delivered")) == ([], ["dead"])
    first, last = receiver.got[0][0], receiver.got[-1][0]
    assert first["webhook-id"] == last["webhook-id"]


def test_what_cannot_be_sent_again(make: Make) -> None:
    client = make()
    client.post(id="without")
    client.until("without", "succeeded")
    assert client.http.post("/jobs/without/webhook").status_code == 409
    assert client.http.post("/jobs/unknown/webhook").status_code == 404
    wrong = client.http.get("/jobs?webhook=lost")
    assert wrong.json()["detail"][0]["loc"] == ["webhook"]


def test_the_database_of_the_release_before_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    old = Store(folder)
    old.add(Job(id="old", owner="key", task="txt2img", parameters={}))
    old.close()
    connection = sqlite3.connect(folder / "jobs.sqlite3")
    for column in ("webhook_error", "base", "caller"):
        connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    for _ in range(2):
        store = Store(folder)
        assert store.page("", None, 10, None) == []
        assert [job.caller for job in store.page("key", None, 10, None)] == ["key"]
        store.add(Job(id=str(time.time_ns()), owner="other", task="txt2img", parameters={}))
        store.close()


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
    assert receiver.events()[-1]["data"]["id"] == "told-later"


def test_no_webhook_goes_out_unsigned_when_the_secret_is_gone(
    make: Make, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [500]
    first = served(make)
    first.post(id="signed", webhook=receiver.url)
    receiver.wait(1)
    first.api.stop()
    receiver.statuses, seen = [200], len(receiver.got)
    without = make(fetch_insecure=True)
    assert "1 webhooks wait for SD_WEBHOOK_SECRET" in caplog.text
    refused = without.http.post("/jobs/signed/webhook")
    assert refused.status_code == 409
    assert "SD_WEBHOOK_SECRET" in refused.json()["error"]
    time.sleep(4 * webhooks.LOOK_S)
    assert len(receiver.got) == seen
    assert without.get("signed")["webhook_state"] == "waiting"
    without.api.stop()
    served(make)
    receiver.wait(seen + 1)
    headers, body = receiver.got[-1]
    Webhook(SECRET).verify(body, headers)


def test_delays_double_up_to_an_hour() -> None:
    delays = [webhooks.delay(tries) for tries in range(1, webhooks.TRIES)]
    assert all(0.75 * 2**i <= delays[i] <= 1.25 * 2**i for i in range(11))
    assert max(delays) <= 1.25 * 3600
    assert 4.5 * 3600 < sum(delays) < 8 * 3600  # however the dice fall


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https://user:pass@example.com/",
        "x",
        "https://a..b/",
        f"https://{'a' * 64}.example/",
    ],
)
def test_only_https_unless_the_operator_says_so(make: Make, url: str) -> None:
    client = make(webhook_secret=SECRET)
    answer = client.http.post("/jobs", json={"task": "txt2img", "parameters": ASK, "webhook": url})
    assert answer.status_code == 400
    assert answer.json()["detail"][0]["loc"] == ["webhook"]


def test_a_url_that_is_allowed_no_longer_is_a_try_that_failed() -> None:
    """The operator took `SD_FETCH_INSECURE` away between the job and its end."""
    job = Job(id="x", owner="", task="txt2img", parameters={}, webhook="http://a.example/", steps=2)
    sender = webhooks.Webhooks(None, lambda _: {"finished_at": ""}, SECRET)  # type: ignore[arg-type]
    post = sender._post(None, job)  # type: ignore[arg-type]
    assert asyncio.run(post) == ("it could not be reached", False)


@pytest.mark.parametrize("insecure", [False, True])
def test_private_addresses_are_not_called(make: Make, insecure: bool) -> None:
    """The address is checked on connecting, whatever name it hides behind."""
    client = make(webhook_secret=SECRET, fetch_insecure=insecure)
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(300 if insecure else 3 * webhooks.LOOK_S)
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


def test_a_delivery_that_ends_does_not_undo_that_another_was_wanted(tmp_path: Path) -> None:
    now = [100.0]
    store = Store(tmp_path / "jobs", clock=lambda: now[0])
    job = Job(id="one", owner="one", task="txt2img", parameters={}, steps=1)
    url = "https://example.com/hook"
    store.add(replace(job, state="succeeded", finished=1.0, webhook=url, webhook_at=100.0))
    under_way = store.claim_webhook(webhooks.LEASE_S)
    assert under_way is not None
    now[0] = 101.0
    assert store.webhook_again(under_way) is not None
    store.webhook_next(under_way, None, None)  # delivered: nothing else to do
    again = store.claim_webhook(webhooks.LEASE_S)
    assert again is not None and again.webhook_tries == 1
    store.webhook_next(again, None, None)
    now[0] = 1000.0
    assert store.claim_webhook(webhooks.LEASE_S) is None
    store.close()


def test_sending_again_counts_against_the_rate(make: Make, tmp_path: Path) -> None:
    secret, key = new("one", rate=2)
    (tmp_path / "keys").write_text(f"{key.line()}\n")
    client = served(make, api_keys=str(tmp_path / "keys"))
    client.http.headers["x-api-key"] = secret
    client.until(client.post(id="one")["id"], "succeeded")
    statuses = [client.http.post("/jobs/one/webhook").status_code for _ in range(2)]
    assert statuses == [409, 429]
