"""The deployment that draws: one runnable a replica, on its GPU, NeuronCores or CPUs."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import ray
from ray import serve

from deploy.ray.messages import Message, Observation, Order, Outcome
from runnables.engine.request import Plan, Progress, Ticket
from runnables.errors import DeadlineExceeded, StableDiffusionError
from runnables.parameters import AnyParameters
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings

logger = logging.getLogger("ray.serve")
POLL_S = 0.25  # how often a waiting order's place in the queue is looked at
MODELS = 2  # models a replica keeps at once, beside the one it starts with


class Drawer:
    """Draws orders; those of one replica share the engine's steps."""

    def __init__(self, models: dict[str, str] | None = None) -> None:
        self._settings = _fit_threads(Settings.from_environment())
        self._models = models or {}
        self._lock = threading.Lock()
        self._tickets: dict[str, Ticket] = {}
        self._observations: list[Observation] = []
        self._runnable = self._start(self._settings)

    async def draw(self, order: Order, model: str = "") -> AsyncIterator[Message]:
        """Progress as it is made, then one Outcome. Cancelling frees the rows."""
        try:
            ticket, changed = await self._submit(order, model)
        except StableDiffusionError as error:
            yield Outcome(error)
            return
        try:
            async for progress in _follow(ticket, changed, order.every_step):
                yield progress
        finally:
            ticket.cancel()  # without effect on what is finished
            self._tickets.pop(ticket.id, None)
        yield Outcome(_ended(ticket), self._take_observations())

    async def plan(self, order: Order, model: str = "") -> Plan | StableDiffusionError:
        """What an order would be, or why it is refused."""
        try:
            runnable = await self._choose(model)
            plan = partial(runnable.plan, order.parameters, *order.inputs, **order.options)
            return await asyncio.to_thread(plan)
        except StableDiffusionError as error:
            return error

    async def preview(self, id: str, every: int) -> None:
        """Broadcast by the front when somebody wants previews of an order, or no longer does."""
        if id in self._tickets:
            self._tickets[id].preview_every = every

    async def describe(self) -> dict[str, Any]:
        """What the front tells about the model without asking again."""
        return {
            "model": self._runnable.describe(),
            "capacity": self._runnable.capacity,
            "samplers": await asyncio.to_thread(self._runnable.samplers),
        }

    async def check_health(self) -> None:
        """Ray asks every few seconds, and replaces a replica that raises."""
        if not self._runnable.ready:
            raise RuntimeError("the engine has stopped")

    async def __del__(self) -> None:
        """Ray calls it once the orders in flight are finished, or their grace is over."""
        if hasattr(self, "_runnable"):
            await asyncio.to_thread(self._runnable.close)

    # -- models -----------------------------------------------------------------------------

    @serve.multiplexed(max_num_models_per_replica=MODELS)
    async def _load(self, model: str) -> StableDiffusionRunnable:
        """A further model; Ray sends its orders to replicas that have it."""
        settings = self._settings.model_copy(update={"model": self._models[model]})
        return await asyncio.to_thread(self._start, settings)

    async def _choose(self, model: str) -> StableDiffusionRunnable:
        if model not in self._models:
            return self._runnable
        loaded: StableDiffusionRunnable = await self._load(model)
        return loaded

    async def _submit(self, order: Order, model: str) -> tuple[Ticket, asyncio.Event]:
        runnable = await self._choose(model)
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        submit = partial(runnable.submit, on_step=lambda progress: _wake(loop, changed))
        ticket: Ticket = await asyncio.to_thread(
            partial(submit, _less_waiting(order), *order.inputs, **order.options)
        )
        self._tickets[ticket.id] = ticket
        ticket.future.add_done_callback(lambda _: _wake(loop, changed))
        return ticket, changed

    def _start(self, settings: Settings) -> StableDiffusionRunnable:
        runnable = StableDiffusionRunnable(settings, observe=self._observe)
        runnable.start()
        return runnable

    # -- measurements -----------------------------------------------------------------------

    def _observe(self, stage: str, seconds: float, rows: int) -> None:
        with self._lock:
            self._observations.append((stage, seconds, rows))

    def _take_observations(self) -> tuple[Observation, ...]:
        """What was measured since the last outcome; the front counts it."""
        with self._lock:
            taken, self._observations = self._observations, []
        return tuple(taken)


async def _follow(
    ticket: Ticket, changed: asyncio.Event, every_step: bool
) -> AsyncIterator[Progress]:
    """The ticket's progress until it ends: each change, or only the changes of state."""
    told = None
    while not ticket.future.done():
        progress = ticket.progress
        if told is None or progress.state != told.state or (every_step and progress != told):
            told = progress
            yield progress
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), POLL_S)
        changed.clear()


def _wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(changed.set)


def _ended(ticket: Ticket) -> Any:
    error = ticket.future.exception()
    if error is None:
        return ticket.future.result()
    if isinstance(error, StableDiffusionError):
        return error
    raise error


def _less_waiting(order: Order) -> AnyParameters:
    """The parameters with a deadline that began when the front took the request.

    Raises:
        DeadlineExceeded: it has passed before a drawer was free.
    """
    if order.parameters.deadline_s is None:
        return order.parameters
    left = order.parameters.deadline_s - (time.time() - order.submitted)
    if left <= 0:
        raise DeadlineExceeded("no drawer was free in time", loc=("deadline_s",))
    return order.parameters.model_copy(update={"deadline_s": left})


def _fit_threads(settings: Settings) -> Settings:
    """As many CPU threads as Ray has given this replica, unless the operator says otherwise."""
    cpus = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 0))
    return settings.model_copy(update={"threads": settings.threads or cpus})
