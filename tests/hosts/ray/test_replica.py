"""A replica's handling of orders, without Ray around it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from hosts.ray.messages import Order
from hosts.ray.replica import Replica
from runnables.errors import Cancelled
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import NOTHING, Ticket


def test_an_order_that_is_cancelled_while_it_is_submitted_frees_its_rows(
    start: Callable[..., StableDiffusionRunnable], monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica.__new__(Replica)  # its constructor asks Ray
    replica._runnable, replica._tickets = start("sd1"), {}
    submit, tickets = replica._runnable.submit, list[Ticket]()
    begun, go = threading.Event(), threading.Event()

    def slow(*given: Any, **options: Any) -> Ticket:
        begun.set()
        go.wait(30)
        tickets.append(submit(*given, **options))
        return tickets[-1]

    monkeypatch.setattr(replica._runnable, "submit", slow)
    asked = TextToImage(prompt="x", num_inference_steps=150, num_images_per_prompt=8)
    order = Order(asked, NOTHING, {"id": "one"}, False, time.time())

    async def cancelled() -> None:
        first = asyncio.ensure_future(anext(replica.generate(order)))
        await asyncio.to_thread(begun.wait)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
        while not tickets:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(tickets[0].future.exception, 60)

    asyncio.run(cancelled())
    assert isinstance(tickets[0].future.exception(), Cancelled)
