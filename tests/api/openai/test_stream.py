"""What a stream says while there is nothing to say, and when it breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from api.generation import Outcome
from api.openai import stream
from api.openai.translate import ImagesBody
from api.progress.live import Hub
from runnables.parameters import TextToImage
from runnables.ticket import Progress, Ticket


def streamed(during: Callable[[Ticket, str], None]) -> tuple[list[str], Outcome]:
    """Return the events of a stream, and what it is counted as; `during` hears of each."""
    ticket = Ticket(TextToImage(prompt="x", seed=1), progress=Progress("queued", 0, 4))
    outcome, body = Outcome("txt2img"), ImagesBody(stream=True)
    generation: Any = SimpleNamespace(ended=lambda ticket: ticket.future.result())

    async def run() -> list[str]:
        found = []
        with Hub().listening(("", "a"), 0) as listener:
            events = stream.events(generation, outcome, ticket, listener, body, stream.GENERATION)
            async for one in events:
                found.append(one)
                during(ticket, one)
        return found

    return asyncio.run(asyncio.wait_for(run(), 60)), outcome


def test_it_says_that_it_is_still_there_and_how_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies close connections that are silent for a minute."""
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.0)
    monkeypatch.setattr(stream, "LOOK_S", 0.01)

    def during(ticket: Ticket, event: str) -> None:
        if event.startswith(":") and not ticket.future.done():
            ticket.future.set_exception(RuntimeError("a secret"))

    (*comments, last), outcome = streamed(during)
    assert set(comments) == {": still here\n\n"}
    kind, _, data = last.partition("\n")
    assert kind == "event: error"
    message = json.loads(data.removeprefix("data: "))["error"]["message"]
    assert "internal error" in message and "secret" not in message
    assert outcome.status == 500
