"""Progress as server-sent events, and of synchronous requests."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from api.jobs import events as module
from api.jobs.runner import Runner
from api.progress.live import Hub
from tests.api.jobs.conftest import ASK, LONG, Client

Event = tuple[str, dict[str, Any]]


def events(client: Client, id: str, query: str = "") -> Iterator[Event]:
    """The whole stream; the test client hands it over when it has ended."""
    answer = client.http.get(f"/jobs/{id}/events{query}")
    assert answer.headers["content-type"].startswith("text/event-stream")
    for block in answer.text.strip().split("\n\n"):
        if not block.startswith(":"):
            name, data = block.split("\n")
            yield name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def follow(client: Client, *every: int) -> tuple[str, dict[int, list[Event]]]:
    """A new job, and its streams by `preview_every`: they begin before it is drawn."""
    held = pytest.MonkeyPatch()
    held.setattr(Runner, "_has_room", lambda self: False)
    id = client.post(parameters={**LONG, "num_inference_steps": 40})["id"]
    seen: dict[int, list[Event]] = {}

    def subscribe(one: int) -> None:
        seen[one] = list(events(client, id, f"?preview_every={one}"))

    threads = [threading.Thread(target=subscribe, args=(one,)) for one in every]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + 60
        while client.api.jobs.hub.every(("", id)) != math.gcd(*every):
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        held.undo()
    for thread in threads:
        thread.join()
    return id, seen


def test_progress_then_the_document(client: Client) -> None:
    id, seen = follow(client, 2)
    *progress, (last, final) = seen[2]
    assert {name for name, _ in progress} == {"progress"}
    steps = [data["step"] for _, data in progress]
    assert steps == sorted(steps) and len(set(steps)) > 3
    previews = [data["preview"] for _, data in progress if data["preview"]]
    assert previews
    assert Image.open(io.BytesIO(base64.b64decode(previews[0]))).format == "JPEG"
    assert last == final["state"] == "succeeded"
    assert final == client.get(id)


def test_what_has_not_changed_is_not_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    running = {"state": "running", "step": 1, "steps": 4, "position": None, "eta_s": 3.0}
    seen = [running, running, running | {"eta_s": 2.0}, running | {"step": 2}]
    found = iter([*seen, running | {"state": "succeeded"}])

    async def told() -> list[str]:
        stream = module.stream(lambda: next(found), Hub(), ("", "x"), 0)
        return [one.split("\n")[0] async for one in stream]

    assert asyncio.run(told()) == ["event: progress", "event: progress", "event: succeeded"]


def test_late_subscribers_get_the_end(client: Client) -> None:
    done = client.until(client.post()["id"], "succeeded")
    assert list(events(client, done["id"])) == [("succeeded", done)]


def test_several_subscribers(client: Client) -> None:
    _, seen = follow(client, 0, 2, 3)
    assert {stream[-1][0] for stream in seen.values()} == {"succeeded"}
    assert not any(data.get("preview") for _, data in seen[0])
    assert any(data.get("preview") for _, data in seen[2])
    assert any(data.get("preview") for _, data in seen[3])


def test_cancelled_ends_the_stream(client: Client) -> None:
    id = client.post(parameters=LONG)["id"]
    client.until(id, "running")
    threading.Timer(0.2, lambda: client.http.delete(f"/jobs/{id}")).start()
    assert list(events(client, id))[-1][0] == "cancelled"


def test_a_synchronous_request_has_progress_and_can_be_cancelled(client: Client) -> None:
    answers = []

    def draw() -> None:
        answers.append(
            client.http.post("/txt2img?", json={**LONG, "output_format": "json"},
                             headers={"x-request-id": "draw-1"})
        )  # fmt: skip

    thread = threading.Thread(target=draw)
    thread.start()
    while client.http.get("/jobs/draw-1").status_code == 404:
        pass
    client.until("draw-1", "running")
    client.http.delete("/jobs/draw-1")
    thread.join()
    assert answers[0].status_code == 499
    assert client.get("draw-1")["state"] == "cancelled"
    assert list(events(client, "draw-1"))[-1][0] == "cancelled"
    assert client.http.get("/jobs/draw-1/images/0").status_code == 404
    assert client.http.get("/jobs").json()["jobs"] == []


def test_a_finished_synchronous_request_is_known_for_a_while(client: Client) -> None:
    answer = client.http.post("/txt2img", json=ASK, headers={"x-request-id": "draw-2"})
    assert answer.headers["x-request-id"] == "draw-2"
    assert client.get("draw-2")["state"] == "succeeded"
    again = client.http.post("/txt2img", json=ASK, headers={"x-request-id": "bad id/"})
    assert again.headers["x-request-id"] != "bad id/"
    assert client.get(again.headers["x-request-id"])["state"] == "succeeded"
