"""The deployment that draws: one runnable a replica, on its GPU, NeuronCores or CPUs."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import ray
from ray import serve

from hosts.ray.messages import Message, Observation, Order, Outcome
from hosts.ray.multiplexed import Gone, Held, named, unnamed
from runnables.errors import ConfigurationError, DeadlineExceeded, StableDiffusionError
from runnables.parameters import AnyParameters
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from runnables.ticket import Plan, Progress, Result, Ticket

logger = logging.getLogger("ray.serve")
POLL_S = 0.25  # how often a waiting order's place in the queue is looked at
MODELS = 2  # further models a replica keeps at once, beside those it starts with
OF_THE_DEFAULT = {
    "models": "",
    "refiner": None,
    "preview_vae": None,
}  # settings, left out of others


class Drawer:
    """Draws orders; those of one model in one replica share the engine's steps.

    Args:
        models: name -> source of further models, as `model` of an order names them.
    """

    def __init__(self, models: dict[str, str] | None = None) -> None:
        self._settings = _fit_threads(Settings.from_environment())
        self._models = models or {}
        self._id = serve.get_replica_context().replica_tag
        self._lock = threading.Lock()
        self._tickets: dict[str, Ticket] = {}
        self._observations: list[Observation] = []
        self._loading: dict[str, asyncio.Future[Held]] = {}
        self._held: WeakValueDictionary[str, Held] = WeakValueDictionary()
        self._runnable = self._start(self._settings)

    async def draw(self, order: Order, model: str = "") -> AsyncIterator[Message]:
        """Progress as it is made, then one Outcome. Cancelling frees the rows."""
        try:
            async with self._using(model) as runnable:
                ticket, changed = await self._submit(runnable, order, model)
                try:
                    async for progress in _follow(ticket, changed, order.every_step):
                        yield progress
                finally:
                    ticket.cancel()  # without effect on what is finished
                    self._tickets.pop(ticket.id, None)
            yield self._outcome(_ended(ticket), model)
        except StableDiffusionError as error:
            yield self._outcome(error, model)

    async def plan(self, order: Order, model: str = "") -> Plan | StableDiffusionError:
        """What an order would be, or why it is refused."""
        try:
            async with self._using(model) as runnable:
                asked = unnamed(order.parameters) if model else order.parameters
                plan = partial(runnable.plan, asked, *order.inputs, **order.options)
                return named(await asyncio.to_thread(plan), model)
        except StableDiffusionError as error:
            return error

    async def preview(self, id: str, every: int) -> None:
        """Broadcast by the front when somebody wants previews of an order, or no longer does."""
        if id in self._tickets:
            self._tickets[id].preview_every = every

    async def describe(self) -> dict[str, Any]:
        """What the front tells about the models that all drawers start with."""
        return {
            "models": self._runnable.models(),
            "capacity": self._runnable.capacity,
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
    async def _load(self, model: str) -> Held:
        """A further model; Ray sends its orders to replicas that have it.

        Raises:
            ConfigurationError: it cannot be loaded.
        """
        own = {**OF_THE_DEFAULT, "model": self._models[model]}
        try:
            runnable = await asyncio.to_thread(self._start, self._settings.model_copy(update=own))
        except Exception as error:
            logger.exception("the model %s cannot be loaded", model)
            told = isinstance(error, StableDiffusionError)
            why = str(error) if told else type(error).__name__
            raise ConfigurationError(
                f"the model {model} cannot be loaded: {why}", loc=("model",)
            ) from error
        self._held[model] = held = Held(model, runnable)
        return held

    @asynccontextmanager
    async def _using(self, model: str) -> AsyncIterator[StableDiffusionRunnable]:
        if not model:
            yield self._runnable
            return
        async with AsyncExitStack() as stack:
            yield await self._enter(model, stack)

    async def _enter(self, model: str, stack: AsyncExitStack) -> StableDiffusionRunnable:
        """Use a further model until the stack is left."""
        while True:
            held = await self._share(model)
            with suppress(Gone):  # between its loading and now: load it again
                return stack.enter_context(held.use())

    async def _share(self, model: str) -> Held:
        """Orders that wait for the same model load it once, whatever was asked for between them."""
        if model not in self._loading:
            self._loading[model] = asyncio.ensure_future(self._load(model))
            self._loading[model].add_done_callback(lambda _: self._loading.pop(model))
        return await asyncio.shield(self._loading[model])

    async def _submit(
        self, runnable: StableDiffusionRunnable, order: Order, model: str
    ) -> tuple[Ticket, asyncio.Event]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        submit = partial(runnable.submit, on_step=lambda progress: _wake(loop, changed))
        asked = _less_waiting(order)
        ticket: Ticket = await asyncio.to_thread(
            partial(submit, unnamed(asked) if model else asked, *order.inputs, **order.options)
        )
        self._tickets[ticket.id] = ticket
        ticket.future.add_done_callback(lambda _: _wake(loop, changed))
        return ticket, changed

    def _start(self, settings: Settings) -> StableDiffusionRunnable:
        runnable = StableDiffusionRunnable(settings, observe=self._observe)
        runnable.start()
        return runnable

    # -- what the front is told -------------------------------------------------------------

    def _outcome(self, ended: Result | StableDiffusionError, model: str) -> Outcome:
        if isinstance(ended, Result):
            ended = named(ended, model)
        held = [one for one in self._runnable.models()[1:] if one["loaded"]]
        held += [one.describe() for one in list(self._held.values())]
        return Outcome(ended, self._take_observations(), self._id, tuple(held))

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
