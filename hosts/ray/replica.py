"""The deployment with the model: one runnable per replica, on its GPU, NeuronCores or CPUs."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import ray
from ray import serve

from hosts.host import begin
from hosts.ray.messages import Description, Message, Observation, Order, Outcome
from runnables.errors import DeadlineExceeded, StableDiffusionError
from runnables.parameters import AnyParameters
from runnables.runnable import LISTED, Listed, StableDiffusionRunnable
from runnables.settings import Settings
from runnables.ticket import Plan, Progress, Result, Ticket

POLL_S = 0.25  # how often a waiting order's place in the queue is looked at
HINTS = 100  # models that Ray remembers a replica for


class Replica:
    """Works on orders; those that are here at one time share the engine's steps.

    Args:
        models: name -> source of further models, beside those of SD_MODELS.
    """

    def __init__(self, models: Mapping[str, str] | None = None) -> None:
        settings = _settings(models or {})
        begin(settings, logging.getLogger("ray.serve").handlers)
        self._id = serve.get_replica_context().replica_tag
        self._lock = threading.Lock()
        self._tickets: dict[str, Ticket] = {}
        self._observations: list[Observation] = []
        self._runnable = StableDiffusionRunnable(settings, observe=self._observe)
        self._runnable.start()

    async def generate(self, order: Order) -> AsyncIterator[Message]:
        """Progress as it is made, then one Outcome. Cancelling frees the rows."""
        try:
            ticket, changed = await self._submit(order)
            try:
                if order.parameters.model is not None:
                    await self._remember(order.parameters.model)
                async for progress in _follow(ticket, changed, order.every_step):
                    yield progress
            finally:
                ticket.cancel()  # without effect on what is finished
                self._tickets.pop(ticket.id, None)
            yield self._outcome(_ended(ticket))
        except StableDiffusionError as error:
            yield self._outcome(error)

    async def plan(self, order: Order) -> Plan | StableDiffusionError:
        """Return what an order would be, or why it is refused."""
        plan = partial(self._runnable.plan, order.parameters, order.inputs, **order.options)
        try:
            return await asyncio.to_thread(plan)
        except StableDiffusionError as error:
            return error

    async def preview(self, id: str, every: int) -> None:
        """Broadcast by the ingress when somebody wants previews of an order, or no longer does."""
        if id in self._tickets:
            self._tickets[id].preview_every = every

    async def change_model(
        self, name: str, load: bool
    ) -> tuple[str, list[Description], StableDiffusionError | None]:
        """Load or unload a model; return this replica's id, its models, and what went wrong."""
        error: StableDiffusionError | None = None
        try:
            await asyncio.to_thread(self._runnable.change_model, name, load=load)
        except StableDiffusionError as caught:
            error = caught
        return self._id, self._runnable.models(), error

    async def describe(self) -> dict[str, Any]:
        """Return what the ingress answers about models and about names that requests may use."""
        return {
            "replica": self._id,
            "models": self._runnable.models(),
            "capacity": self._runnable.capacity,
            **{name: await self.list(name) for name in LISTED},
        }

    async def list(self, kind: Listed) -> list[Description]:
        """Return what requests may name of a kind, as it is now."""
        return await asyncio.to_thread(self._runnable.listed, kind)

    async def check_health(self) -> None:
        """Ray calls it every few seconds, and replaces a replica that raises."""
        if not self._runnable.alive:
            raise RuntimeError("the engine has failed")

    async def __del__(self) -> None:
        """Ray calls it once the orders in flight are finished, or their grace is over."""
        if hasattr(self, "_runnable"):
            await asyncio.to_thread(self._runnable.close)

    async def _submit(self, order: Order) -> tuple[Ticket, asyncio.Event]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        submit = partial(self._runnable.submit, on_step=lambda progress: _wake(loop, changed))
        submitting = asyncio.ensure_future(
            asyncio.to_thread(submit, _less_waiting(order), order.inputs, **order.options)
        )
        try:
            ticket: Ticket = await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(_cancel)
            raise
        self._tickets[ticket.id] = ticket
        ticket.future.add_done_callback(lambda _: _wake(loop, changed))
        return ticket, changed

    @serve.multiplexed(max_num_models_per_replica=HINTS)
    async def _remember(self, model: str) -> str:
        """Have Ray send later orders for this model to this replica, too.

        The engine's own pool loads and evicts it.
        """
        return model

    def _outcome(self, ended: Result | StableDiffusionError) -> Outcome:
        models = tuple(self._runnable.models())
        return Outcome(ended, self._take_observations(), self._id, models)

    def _observe(self, stage: str, seconds: float, rows: int) -> None:
        with self._lock:
            self._observations.append((stage, seconds, rows))

    def _take_observations(self) -> tuple[Observation, ...]:
        """Return what was measured since the last outcome; the ingress counts it."""
        with self._lock:
            taken, self._observations = self._observations, []
        return tuple(taken)


async def _follow(
    ticket: Ticket, changed: asyncio.Event, every_step: bool
) -> AsyncIterator[Progress]:
    """The ticket's progress until it ends: each change, or only the changes of state."""
    sent = None
    while not ticket.future.done():
        progress = ticket.progress
        if sent is None or progress.state != sent.state or (every_step and progress != sent):
            sent = progress
            yield progress
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), POLL_S)
        changed.clear()


def _cancel(submitted: asyncio.Future[Ticket]) -> None:
    """Cancel what was submitted for nobody: the thread that submits cannot be stopped."""
    if submitted.exception() is None:
        submitted.result().cancel()


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
    """The parameters with a deadline that began when the ingress took the request.

    Raises:
        DeadlineExceeded: it has passed before a replica was free.
    """
    if order.parameters.deadline_s is None:
        return order.parameters
    left = order.parameters.deadline_s - (time.time() - order.submitted)
    if left <= 0:
        raise DeadlineExceeded("no replica was free in time", loc=("deadline_s",))
    return order.parameters.model_copy(update={"deadline_s": left})


def _settings(models: Mapping[str, str]) -> Settings:
    """The environment's, with the application's models.

    They have as many CPU threads as Ray has given this replica, unless the operator says otherwise.
    """
    settings = Settings.from_environment()
    cpus = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 0))
    further = ",".join(f"{name}={source}" for name, source in models.items())
    named = ",".join(part for part in (settings.models, further) if part)
    given = settings.model_dump(exclude_unset=True)
    return Settings(**{**given, "models": named, "threads": settings.threads or cpus})
