"""Cancelling and deadlines on Ray: they reach the replica, and waiting for one counts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from hosts.ray.messages import Order, Outcome
from hosts.ray.replica import Replica, _less_waiting
from runnables.errors import Cancelled, DeadlineExceeded
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import NOTHING, Progress
from tests.service.server import Server
from tests.service.test_life import SLOW


def order(steps: int, waited_s: float = 0.0, **parameters: Any) -> Order:
    requested = TextToImage(prompt="sea", num_inference_steps=steps, seed=1, **parameters)
    return Order(requested, NOTHING, {"preview_every": 0}, True, time.time() - waited_s)


class Alone(Replica):
    """A replica without Ray around it."""

    def __init__(self, runnable: StableDiffusionRunnable) -> None:
        self._runnable, self._id = runnable, "alone"
        self._tickets, self._observations, self._lock = {}, [], threading.Lock()

    def __del__(self) -> None:  # type: ignore[override]  # Ray awaits the replica's own
        pass


@pytest.fixture
def replica(start: Callable[..., StableDiffusionRunnable]) -> Replica:
    return Alone(start("sd1"))


def test_an_order_that_ray_cancels_is_cancelled_in_the_engine(replica: Replica) -> None:
    async def cancel() -> None:
        messages = replica.generate(order(150, num_images_per_prompt=4))
        assert isinstance(await anext(messages), Progress)
        (ticket,) = replica._tickets.values()
        await messages.aclose()  # what Ray does
        with pytest.raises(Cancelled):
            await asyncio.to_thread(ticket.future.result, 60)
        assert replica._tickets == {}

    asyncio.run(cancel())


@pytest.mark.parametrize(("waited_s", "deadline_s"), [(0.0, 0.05), (10.0, 10.01), (10.0, 9.0)])
def test_a_deadline_counts_from_where_the_ingress_took_the_request(
    replica: Replica, waited_s: float, deadline_s: float
) -> None:
    async def ended() -> Any:
        late = order(150, waited_s, num_images_per_prompt=4, deadline_s=deadline_s)
        return [message async for message in replica.generate(late)][-1]

    last = asyncio.run(ended())
    assert isinstance(last, Outcome) and isinstance(last.ended, DeadlineExceeded)
    assert last.ended.loc == ("deadline_s",)


def test_what_is_left_of_a_deadline() -> None:
    left = _less_waiting(order(1, 10.0, deadline_s=15.0)).deadline_s
    assert left is not None and 4.0 < left <= 5.0
    assert _less_waiting(order(1, 10.0)).deadline_s is None


def test_a_deadline_on_the_way_through_ray(server: Server) -> None:
    late = httpx.post(f"{server.url}/txt2img", json={**SLOW, "deadline_s": 0.3}, timeout=60)
    assert late.status_code == 504, late.text
    assert late.json()["detail"][0]["loc"] == ["deadline_s"]
