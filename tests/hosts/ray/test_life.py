"""Cancelling and deadlines on Ray: they reach the replica, and waiting for one counts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from hosts.ray.messages import Order, Outcome
from hosts.ray.replica import Replica, _less_waiting
from runnables.errors import Cancelled, DeadlineExceeded
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import NOTHING, Progress
from tests.long import long
from tests.service.server import Server
from tests.service.test_life import SLOW, metric, until

SHORT = 6


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
    late = httpx.post(f"{server.url}/txt2img", json={**SLOW, "deadline_s": 0.3}, timeout=300)
    assert late.status_code == 504, late.text
    assert late.json()["detail"][0]["loc"] == ["deadline_s"]


def _leave(server: Server) -> None:
    """Send a long request, and go away."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/txt2img", json=SLOW, timeout=0.7)


def _delete(server: Server) -> None:
    """Accept a long job, and cancel it while it runs."""
    job = httpx.post(
        f"{server.url}/jobs", json={"task": "txt2img", "parameters": SLOW}, timeout=300
    )
    url = f"{server.url}{job.headers['location']}"
    assert until(lambda: httpx.get(url, timeout=300).json()["step"] > 0)
    assert httpx.delete(url, timeout=300).is_success
    assert until(lambda: httpx.get(url, timeout=300).json()["state"] == "cancelled")


@long
@pytest.mark.parametrize("cancel", [_leave, _delete])
def test_a_cancel_reaches_the_engine_of_the_replica(
    server: Server, cancel: Callable[[Server], None]
) -> None:
    """The ingress counts the rows of a replica's steps with each outcome, so short requests ask.

    Until the long one has left its engine, there are more rows than those of the short ones.
    """
    short = {"prompt": "sea", "num_inference_steps": 1, "scheduler": "ddim", "guidance_scale": 2}
    sent = 0

    def others() -> float:
        """Return the denoiser rows of other requests so far; each replica gets some short ones."""
        nonlocal sent
        sent += SHORT
        with ThreadPoolExecutor(SHORT) as pool:
            asked = [
                pool.submit(httpx.post, f"{server.url}/txt2img", json=short, timeout=300)
                for _ in range(SHORT)
            ]
        assert all(one.result().is_success for one in asked)
        return metric(server, "sd_batch_rows_sum") - 2 * sent

    def quiet() -> bool:
        first = others()
        time.sleep(0.5)
        return others() == first

    assert until(quiet)
    before = others()
    cancel(server)
    assert until(lambda: quiet() and quiet(), timeout=300)
    steps, images = SLOW["num_inference_steps"], SLOW["num_images_per_prompt"]
    assert others() - before < 2 * steps * images, "it was generated to its end"
