"""Synchronous requests are known while they run and some minutes after, and then forgotten."""

from __future__ import annotations

import time

import pytest
from PIL import Image

from api.progress import requests
from api.progress.live import Hub
from api.progress.requests import Requests
from runnables.errors import Cancelled, GenerationFailed
from runnables.parameters import TextToImage
from runnables.ticket import GeneratedImage, Progress, Result, Ticket

WANTED = TextToImage(prompt="x", seed=1)


def followed(known: Requests, id: str = "a") -> Ticket:
    ticket = Ticket(WANTED, progress=Progress("drawing", 1, 4))
    known.follow(known.begin("me", id), ticket)
    return ticket


def test_a_request_that_runs_and_ends() -> None:
    known = Requests(Hub())
    ticket = followed(known)
    record, live = known.find("me", "a") or pytest.fail("unknown")
    assert (record.state, record.steps, live.progress) == ("queued", 4, ticket.progress)
    assert record.parameters["prompt"] == "x"
    assert known.find("you", "a") is None
    ticket.progress = Progress("done", 4, 4)
    ticket.future.set_result(Result((GeneratedImage(Image.new("RGB", (8, 8)), 1),), WANTED, {}))
    record, live = known.find("me", "a") or pytest.fail("forgotten")
    assert (record.state, record.step, record.final) == ("succeeded", 4, True)
    assert live.ticket is None, "its images are freed"


@pytest.mark.parametrize(
    ("error", "state", "status"),
    [(GenerationFailed("no"), "failed", 500), (Cancelled("gone"), "cancelled", None)],
)
def test_how_it_ended(error: Exception, state: str, status: int | None) -> None:
    known = Requests(Hub())
    followed(known).future.set_exception(error)
    record, _ = known.find("me", "a") or pytest.fail("forgotten")
    assert record.state == state
    assert (record.error or {}).get("status") == status


def test_a_repeated_id_names_the_latest() -> None:
    known = Requests(Hub())
    first, second = followed(known), followed(known)
    first.future.set_exception(Cancelled("gone"))
    record, live = known.find("me", "a") or pytest.fail("unknown")
    assert (record.state, live.ticket) == ("queued", second)


def test_old_ones_are_forgotten_and_running_ones_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "KEPT", 3)
    known = Requests(Hub())
    running = followed(known, "running")
    for i in range(5):
        followed(known, str(i)).future.set_exception(Cancelled("gone"))
    kept = [id for id in ("running", *"01234") if known.find("me", id)]
    assert kept[0] == "running" and running and len(kept) <= 4
    monkeypatch.setattr(time, "time", lambda: 1e12)
    followed(known, "new")
    assert [id for id in ("running", *"01234", "new") if known.find("me", id)] == ["running", "new"]
