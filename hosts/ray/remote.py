"""A runnable whose engine is elsewhere: the route table cannot tell it from a local one."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from hosts.ray.messages import Order, Outcome
from hosts.ray.served import Served
from runnables.errors import Cancelled, NotReady, OverCapacity, StableDiffusionError
from runnables.parameters import AnyParameters
from runnables.runnable import Observe, StableDiffusionRunnable
from runnables.settings import Settings
from runnables.ticket import OnStep, Plan, Progress, Result, Ticket

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
logger = logging.getLogger("ray.serve")
ATTEMPTS = 3  # times an order is sent out when the drawer that had it is lost


@dataclass(eq=False)
class RemoteTicket(Ticket):
    """A ticket whose cancelling reaches the drawer."""

    task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        super().cancel()
        if self.task is not None and not self.task.done():
            self.task.get_loop().call_soon_threadsafe(self.task.cancel)


class RemoteRunnable(StableDiffusionRunnable):
    """Sends every request to a drawer, and once more to another one when that drawer dies.

    Args:
        drawers: the handle of the `Drawer` deployment.
        loop: where requests are followed; calls come from other threads.
        further: names of models that drawers load when they are asked for.
    """

    def __init__(
        self,
        settings: Settings,
        drawers: DeploymentHandle,
        loop: asyncio.AbstractEventLoop,
        further: Iterable[str] = (),
        *,
        observe: Observe | None = None,
    ) -> None:
        super().__init__(settings, observe=observe)
        self._served = Served(further)
        self._drawers = drawers
        self._loop = loop
        self._known: dict[str, Any] | None = None
        self._tickets: set[RemoteTicket] = set()
        self._draining = False

    # -- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Wait for the first drawer and ask it what it draws.

        Raises:
            ConfigurationError: two models have the same name.
        """
        known = self._drawers.describe.remote().result()
        self._served.begin(known["models"])
        self._known = known

    @property
    def ready(self) -> bool:
        return self._known is not None and not self._draining

    def drain(self, timeout_s: float | None = None) -> bool:
        self._draining = True
        end = time.monotonic() + (self.settings.drain_s if timeout_s is None else timeout_s)
        while self._tickets and time.monotonic() < end:
            time.sleep(0.02)
        return not self._tickets

    def close(self) -> None:
        self._draining = True
        for ticket in list(self._tickets):
            ticket.cancel()

    # -- drawing ----------------------------------------------------------------------------

    def submit(
        self,
        parameters: AnyParameters,
        image: Image | None = None,
        mask: Image | None = None,
        *,
        controls: Sequence[Image] = (),
        id: str | None = None,
        on_step: OnStep | None = None,
        preview_every: int = 0,
    ) -> Ticket:
        if not self.ready:
            raise NotReady("the model is loading, or the service is stopping")
        model = self._served.further(parameters)
        ticket = RemoteTicket(
            parameters, id or uuid.uuid4().hex, on_step=on_step, preview_every=preview_every
        )
        options = {"id": ticket.id, "preview_every": preview_every, "controls": controls}
        order = Order(parameters, (image, mask), options, on_step is not None, time.time())
        ticket.future.set_running_or_notify_cancel()  # from here on only `_follow` ends it
        self._tickets.add(ticket)
        self._loop.call_soon_threadsafe(self._begin, ticket, order, model)
        return ticket

    def plan(
        self,
        parameters: AnyParameters,
        image: Image | None = None,
        mask: Image | None = None,
        *,
        controls: Sequence[Image] = (),
    ) -> Plan:
        if not self.ready:
            raise NotReady("the model is loading, or the service is stopping")
        model = self._served.further(parameters)
        order = Order(parameters, (image, mask), {"controls": controls}, False, time.time())
        asking = self._persist("a plan", partial(self._ask_for_plan, order, model))
        planned = asyncio.run_coroutine_threadsafe(asking, self._loop).result()
        if isinstance(planned, StableDiffusionError):
            raise planned
        return planned

    async def _ask_for_plan(self, order: Order, model: str) -> Plan | StableDiffusionError:
        handle = self._drawers.options(multiplexed_model_id=model)
        planned: Plan | StableDiffusionError = await handle.plan.remote(order, model)
        return planned

    def _begin(self, ticket: RemoteTicket, order: Order, model: str) -> None:
        ticket.task = self._loop.create_task(self._follow(ticket, order, model))

    async def _follow(self, ticket: RemoteTicket, order: Order, model: str) -> None:
        """The one place that ends a ticket's future."""
        try:
            attempt = partial(self._attempt, ticket, order, model)
            _settle(ticket, await self._persist(ticket.id, attempt))
        except asyncio.CancelledError:
            _settle(ticket, Cancelled("the request was cancelled"))
        except Exception as error:
            _settle(ticket, error)
        finally:
            self._tickets.discard(ticket)

    async def _persist(
        self, what: str, attempt: Callable[[], Awaitable[T | StableDiffusionError]]
    ) -> T | StableDiffusionError:
        """Try again with another drawer while drawers are lost."""
        for number in range(1, ATTEMPTS + 1):
            try:
                return await attempt()
            except BackPressureError:
                return OverCapacity("too many requests wait for a drawer", retry_after=5)
            except DeploymentUnavailableError as error:
                return NotReady(f"no drawer can be started: {error}")
            except RayActorError as error:
                self._served.forget_held()
                logger.warning("attempt %d of %s was lost: %s", number, what, error)
            except RayError as error:
                logger.error("%s could not be drawn: %s", what, error)
                raise
        return NotReady("the drawers that had this request were lost")

    async def _attempt(
        self, ticket: RemoteTicket, order: Order, model: str
    ) -> Result | StableDiffusionError:
        previews = order.options["preview_every"]
        handle = self._drawers.options(stream=True, multiplexed_model_id=model)
        messages = handle.draw.remote(order, model)
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
        """All drawers are told: a handle cannot name the one that has the order."""
        told = self._drawers.broadcast("preview", id, every)
        await told.results_async(timeout_s=5, return_exceptions=True)

    def _read(self, outcome: Outcome) -> Result | StableDiffusionError:
        for observation in outcome.observations:
            self._observe(*observation)
        self._served.hear(outcome.drawer, outcome.held)
        return outcome.ended

    # -- what there is ----------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        return dict(self._about("models")[0])

    def models(self) -> list[dict[str, Any]]:
        """The default first; of those that no drawer has told about only the name."""
        if self._known is None:
            raise NotReady("the model is still loading")
        return self._served.describe()

    @property
    def capacity(self) -> int:
        """Of one drawer: how many there are is Ray's affair."""
        return int(self._about("capacity"))

    def _about(self, what: str) -> Any:
        if self._known is None:
            raise NotReady("the model is still loading")
        return self._known[what]

    def load(self) -> dict[str, int]:
        """Of the requests that came through this front."""
        states = [(one.progress.state, one.parameters) for one in list(self._tickets)]
        drawing = [p.num_images_per_prompt for state, p in states if state == "drawing"]
        return {"waiting": len(states) - len(drawing), "active": sum(drawing)}


def _report(ticket: RemoteTicket, progress: Progress) -> None:
    ticket.progress = progress
    if ticket.on_step is not None and progress.step:
        ticket.on_step(progress)


def _settle(ticket: RemoteTicket, ended: Result | Exception) -> None:
    steps = ticket.progress.steps
    if isinstance(ended, Result):
        ticket.progress = Progress("done", steps, steps)
        ticket.future.set_result(ended)
    else:
        state = "cancelled" if isinstance(ended, Cancelled) else "failed"
        ticket.progress = Progress(state, ticket.progress.step, steps)  # type: ignore[arg-type]
        ticket.future.set_exception(ended)
