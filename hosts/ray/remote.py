"""A runnable whose engine is in Ray's replicas."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
)
from ray.serve.handle import DeploymentHandle

from hosts.ray.messages import Description, Order, Outcome
from hosts.ray.reported import Reported
from runnables.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    NotReady,
    OverCapacity,
    StableDiffusionError,
)
from runnables.parameters import AnyParameters
from runnables.runnable import Listed, Observe
from runnables.settings import Settings
from runnables.ticket import (
    ANYBODY,
    NOTHING,
    Caller,
    Inputs,
    Load,
    OnStep,
    Plan,
    Progress,
    Result,
    Ticket,
    settle,
)

T = TypeVar("T")
Following = asyncio.Task[Result | StableDiffusionError]
logger = logging.getLogger("ray.serve")
ATTEMPTS = 3  # times an order is sent out when the replica that had it is lost
LIST_S = 2.0  # how long a replica may take to list names
FRESH_S = 1.0  # a list as old as this is new enough: busy replicas answer late
PLAN_S = 10.0  # how long a plan may wait for a replica, in a thread that all requests share
LATE_S = 5.0  # that a replica may tell of a deadline after it
PREVIEWS_S = 5.0  # how long replicas may take to hear of previews
REPORTS_S = 10.0  # how often all replicas are asked for their models, where somebody wants to know
CLOSE_S = 5.0  # how long `close` waits until requests have ended


@dataclass(eq=False)
class RemoteTicket(Ticket):
    """A ticket whose cancelling reaches the replica."""

    task: Following | None = None

    def cancel(self) -> None:
        super().cancel()
        self.stop()

    def stop(self) -> None:
        """Have the replica stop, too."""
        if self.task is not None and not self.task.done():
            self.task.get_loop().call_soon_threadsafe(self.task.cancel)


class RemoteRunnable:
    """Sends every request to a replica, and to another one when that replica dies.

    Args:
        replicas: the handle of the `Replica` deployment.
        loop: where requests are followed; calls come from other threads.
        observe: gets what the replicas measure.
    """

    def __init__(
        self,
        settings: Settings,
        replicas: DeploymentHandle,
        loop: asyncio.AbstractEventLoop,
        *,
        observe: Observe,
    ) -> None:
        self.settings = settings
        self._observe = observe
        self._replicas = replicas
        self._loop = loop
        self._known: dict[str, Any] | None = None
        self._listed: dict[str, float] = {}
        self._reported = Reported()
        self._asked = time.monotonic()  # when all replicas were asked for their models
        self._tickets: set[RemoteTicket] = set()
        self._draining = False

    # -- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Wait for the first replica, and have it describe its models."""
        known = self._replicas.describe.remote().result()
        self._reported.hear(known["replica"], known["models"])
        self._known = known

    @property
    def ready(self) -> bool:
        return self._known is not None and not self._draining

    @property
    def alive(self) -> bool:
        """True: Ray itself replaces a replica whose engine has failed."""
        return True

    def drain(self, timeout_s: float | None = None) -> bool:
        self._draining = True
        return self._wait(self.settings.drain_s if timeout_s is None else timeout_s)

    def close(self) -> None:
        """Follow no requests any more; what is not finished ends with NotReady."""
        self._draining = True
        for ticket in list(self._tickets):
            ticket.stop()
        self._wait(CLOSE_S)

    def _wait(self, seconds: float) -> bool:
        """Wait until no request is left. Return whether that is so."""
        end = time.monotonic() + seconds
        while self._tickets and time.monotonic() < end:
            time.sleep(0.02)
        return not self._tickets

    # -- requests ---------------------------------------------------------------------------

    def submit(
        self,
        parameters: AnyParameters,
        inputs: Inputs = NOTHING,
        *,
        id: str | None = None,
        on_step: OnStep | None = None,
        preview_every: int = 0,
        caller: Caller = ANYBODY,
    ) -> Ticket:
        if not self.ready:
            raise NotReady("the model is loading, or the service is stopping")
        ticket = RemoteTicket(
            parameters, id or uuid.uuid4().hex, on_step=on_step, preview_every=preview_every
        )
        options = {"id": ticket.id, "preview_every": preview_every, "caller": caller}
        order = Order(parameters, inputs, options, on_step is not None, time.time())
        ticket.future.set_running_or_notify_cancel()  # from here on only `_end` ends it
        self._tickets.add(ticket)
        self._loop.call_soon_threadsafe(self._begin, ticket, order)
        return ticket

    def plan(self, parameters: AnyParameters, inputs: Inputs = NOTHING) -> Plan:
        if not self.ready:
            raise NotReady("the model is loading, or the service is stopping")
        order = Order(parameters, inputs, {}, False, time.time())
        persisting = self._persist("a plan", partial(self._ask_for_plan, order))
        asking = asyncio.wait_for(persisting, PLAN_S)
        try:
            planned = asyncio.run_coroutine_threadsafe(asking, self._loop).result()
        except TimeoutError as error:
            raise NotReady(f"no replica was free within {PLAN_S:.0f} s; send it again") from error
        if isinstance(planned, StableDiffusionError):
            raise planned
        return planned

    async def _ask_for_plan(self, order: Order) -> Plan | StableDiffusionError:
        handle = self._replicas.options(multiplexed_model_id=self._hint(order))
        planned: Plan | StableDiffusionError = await handle.plan.remote(order)
        return planned

    def _hint(self, order: Order) -> str:
        """The model for which Ray looks for a replica that has it; "": any replica is right."""
        return self._reported.further(order.parameters.model)

    def _begin(self, ticket: RemoteTicket, order: Order) -> None:
        ticket.task = self._loop.create_task(self._in_time(ticket, order))
        ticket.task.add_done_callback(partial(self._end, ticket))
        if ticket.cancelled:
            ticket.stop()

    def _end(self, ticket: RemoteTicket, task: Following) -> None:
        """The one place that ends a ticket's future."""
        if not task.cancelled():
            settle(ticket, task.exception() or task.result())
        elif ticket.cancelled:
            settle(ticket, Cancelled("the request was cancelled"))
        else:
            settle(ticket, NotReady("the service has stopped"))
        self._tickets.discard(ticket)

    async def _in_time(self, ticket: RemoteTicket, order: Order) -> Result | StableDiffusionError:
        """Hold the deadline also while no replica is free, which only this process sees."""
        allowed = order.parameters.deadline_s or self.settings.request_timeout_s
        try:
            async with asyncio.timeout(allowed + LATE_S):
                return await self._persist(ticket.id, partial(self._attempt, ticket, order))
        except TimeoutError:
            return DeadlineExceeded(f"not finished within {allowed:g} s", loc=("deadline_s",))

    async def _persist(
        self, what: str, attempt: Callable[[], Awaitable[T | StableDiffusionError]]
    ) -> T | StableDiffusionError:
        """Try again with another replica while replicas are lost."""
        for number in range(1, ATTEMPTS + 1):
            try:
                return await attempt()
            except BackPressureError:
                return OverCapacity("too many requests wait for a replica", retry_after=5)
            except DeploymentUnavailableError as error:
                return NotReady(f"no replica can be started: {error}")
            except RayActorError as error:
                self._asked = -math.inf  # ask again
                logger.warning("attempt %d of %s was lost: %s", number, what, error)
            except RayError as error:
                logger.error("%s failed: %s", what, error)
                raise
        return EngineFailed("the replicas that had this request were lost")

    async def _attempt(self, ticket: RemoteTicket, order: Order) -> Result | StableDiffusionError:
        previews = order.options["preview_every"]
        handle = self._replicas.options(stream=True, multiplexed_model_id=self._hint(order))
        messages = handle.generate.remote(order)
        try:
            async for message in messages:
                if isinstance(message, Outcome):
                    return self._read(message)
                _report(ticket, message)
                if ticket.preview_every != previews:
                    previews = ticket.preview_every
                    await self._ask_for_previews(ticket.id, previews)
        except asyncio.CancelledError:
            messages.cancel()
            raise
        raise RayActorError()  # a stream that ends without its outcome

    async def _ask_for_previews(self, id: str, every: int) -> None:
        """Every replica gets it: a handle cannot name the one that has the order."""
        try:
            sent = self._replicas.broadcast("preview", id, every)
            await sent.results_async(timeout_s=PREVIEWS_S, return_exceptions=True)
        except (TimeoutError, RayServeException) as error:
            logger.warning("not every replica heard of the previews of %s: %r", id, error)

    def _read(self, outcome: Outcome) -> Result | StableDiffusionError:
        for observation in outcome.observations:
            self._observe(*observation)
        self._reported.hear(outcome.replica, outcome.models)
        return outcome.ended

    def change_model(self, name: str, *, load: bool) -> None:
        """Every replica loads or unloads it."""
        try:
            sent = self._replicas.broadcast("change_model", name, load)
            ends = sent.results(timeout_s=self.settings.request_timeout_s)
        except TimeoutError as error:
            raise DeadlineExceeded("some replicas are not done; they go on") from error
        except (RayActorError, RayServeException) as error:
            raise NotReady("a replica was lost, or none is running; try again later") from error
        for replica, models, _ in ends:
            self._reported.hear(replica, models)
        for _, _, failure in ends:
            if failure is not None:
                raise failure

    # -- what there is ----------------------------------------------------------------------

    def describe(self) -> Description:
        return dict(self._about("models")[0])

    def models(self) -> list[Description]:
        """Every model, the default first; one is loaded if a replica has it.

        That is what the replicas said a while ago: nobody waits for an answer here.
        """
        self._about("models")
        if time.monotonic() - self._asked > REPORTS_S:
            self._asked = time.monotonic()
            asyncio.run_coroutine_threadsafe(self._ask_for_reports(), self._loop)
        return self._reported.describe()

    async def _ask_for_reports(self) -> None:
        """Have every replica report, and forget what was reported by those that are gone."""
        try:
            sent = self._replicas.broadcast("describe")
            ends = await sent.results_async(timeout_s=LIST_S, return_exceptions=True)
        except DeploymentUnavailableError:
            ends = []  # none is running
        except (TimeoutError, RayServeException) as error:
            logger.warning("not every replica reports its models: %r", error)
            return
        reports = [one for one in ends if not isinstance(one, BaseException)]
        for one in reports:
            self._reported.hear(one["replica"], one["models"])
        self._reported.keep({one["replica"] for one in reports})

    @property
    def capacity(self) -> int:
        """That of one replica: Ray decides how many there are."""
        return int(self._about("capacity"))

    def listed(self, kind: Listed) -> list[Description]:
        """A replica's list: its disk counts, not the one here.

        Where no replica answers in time, as with none running, it is kind one reported last.
        """
        known: list[Description] = self._about(kind)
        assert self._known is not None
        now = time.monotonic()
        if now - self._listed.get(kind, -FRESH_S) < FRESH_S:
            return known
        self._listed[kind] = now
        try:
            known = self._known[kind] = self._replicas.list.remote(kind).result(timeout_s=LIST_S)
        except (TimeoutError, RayError, RayServeException) as error:
            logger.warning("no replica lists its %s: %s", kind, error)
        return known

    def _about(self, what: str) -> Any:
        if self._known is None:
            raise NotReady("the model is still loading")
        return self._known[what]

    @property
    def free_bytes(self) -> float:
        """The replicas' devices are not this process's."""
        return math.inf

    def load(self) -> Load:
        """Return how busy the replicas are with the requests that came through this ingress."""
        states = [(one.progress.state, one.parameters) for one in list(self._tickets)]
        active = [p.num_images_per_prompt for state, p in states if state == "drawing"]
        return Load(len(states) - len(active), sum(active))


def _report(ticket: RemoteTicket, progress: Progress) -> None:
    ticket.progress = progress
    if ticket.on_step is not None and progress.step:
        ticket.on_step(progress)
