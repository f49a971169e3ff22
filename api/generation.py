"""The one way from a request to its images, for our endpoints and for other people's APIs.

Whatever a request looks like, it is admitted, counted, followed, cancelled and measured here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request

from api.http import log, request_id, tracing
from api.http.forms import Form
from api.http.keys import Keys
from api.http.server_span import server_span
from api.progress.requests import Requests
from runnables.errors import Cancelled, NotReady, StableDiffusionError
from runnables.metrics import Metrics
from runnables.parameters import Parameters, Task
from runnables.runnable import Runnable
from runnables.ticket import Result, Ticket


@dataclass
class Outcome:
    """What a request is counted as, once it was answered: the task and the HTTP status."""

    task: Task
    status: int = 200


class Generation:
    """The base of all handlers that generate or enlarge images.

    Attributes:
        failure: The reason why the model could not be loaded, or None.
        started: Whether everything takes requests, jobs included.
    """

    def __init__(
        self,
        runnable: Runnable,
        keys: Keys,
        requests: Requests,
        metrics: Metrics | None = None,
    ) -> None:
        self.runnable = runnable
        self.settings = runnable.settings
        self.keys = keys
        self.failure: str | None = None
        self.started = False
        self._requests = requests
        self._metrics = metrics

    def models(self) -> list[str]:
        """Return the names of the models that are served, the default first.

        The folder that they lie in is looked into: not on the event loop.
        """
        return [str(model["name"]) for model in self.runnable.models()]

    def check_ready(self) -> None:
        """Raise NotReady while the model loads, or when it could not be loaded."""
        if self.failure:
            raise NotReady(f"the model could not be loaded: {self.failure}")
        if not self.runnable.ready:
            raise NotReady("the model is loading, or the service is stopping")

    @contextmanager
    def admitted(self, request: Request, task: Task) -> Iterator[str]:
        """Surround everything that is done for a request; the value is its owner.

        The request is counted once, when the block is left: as the error that leaves it, or as
        `outcome` says.

        Raises:
            Unauthorized, OverCapacity, NotReady: It is not admitted.
        """
        request.state.outcome = outcome = Outcome(task)
        try:
            with server_span(request):
                log.key_name.set(self.keys.name(self.keys.check(request.headers)))
                with self.keys.admitted(request.headers) as owner:
                    self.check_ready()
                    yield owner
        except BaseException as error:
            outcome.status = _status(error)
            raise
        finally:
            if self._metrics:
                self._metrics.ended(outcome.task, outcome.status, log.key_name.get())

    def outcome(self, request: Request) -> Outcome:
        """Return what an admitted request is to be counted as; its handler may change that."""
        outcome: Outcome = request.state.outcome
        return outcome

    async def run(self, request: Request, owner: str, form: Form) -> Result:
        """Submit a request, and wait until its images are finished or the client has gone.

        Raises:
            Cancelled: The client has gone, or somebody cancelled the request by its id.
            StableDiffusionError: It was refused, or it failed.
        """
        return await self.wait(request, await self.submit(request, owner, form))

    async def submit(self, request: Request, owner: str, form: Form) -> Ticket:
        """Submit a request; from here on `/jobs/{x-request-id}` knows it.

        The caller has to `release` the ticket.
        """
        self.outcome(request).task = form.parameters.task
        if isinstance(form.parameters, Parameters):  # enlarging needs none of the models
            default = str(self.runnable.describe()["name"])
            self.keys.check_model(owner, form.parameters.model or default)
        host = request.client.host if request.client else ""
        live = self._requests.begin(owner, request_id.of(request))
        ticket = await asyncio.to_thread(
            self.runnable.submit,
            form.parameters,
            form.inputs,
            on_step=live.on_step,
            caller=self.keys.caller(owner, host),
        )
        ticket.future.add_done_callback(partial(self._spend, owner))
        self._requests.follow(live, ticket)
        self.measure()
        return ticket

    async def wait(self, request: Request, ticket: Ticket) -> Result:
        """Return the ticket's result. It raises what `run` raises."""
        finished = _end_of(ticket)
        gone: asyncio.Future[Any] = asyncio.ensure_future(_disconnected(request))
        both: set[asyncio.Future[Any]] = {finished, gone}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not finished.done():
                raise Cancelled("the client went away")
            return self.ended(ticket)
        finally:
            gone.cancel()
            self.release(ticket)

    def ended(self, ticket: Ticket) -> Result:
        """Return the result of a ticket that has ended. Raise what ended it."""
        result = ticket.future.result()
        tracing.stages(result.timings, time.monotonic() - ticket.submitted)
        if self._metrics:
            self._metrics.spent(result, log.key_name.get())
        return result

    def _spend(self, owner: str, future: Future[Result]) -> None:
        if future.exception() is None:
            self.keys.used(owner, future.result().cost_units)

    def release(self, ticket: Ticket) -> None:
        """Cancel a ticket that nobody waits for any more; one that has ended stays as it is."""
        ticket.cancel()
        self.measure()

    def measure(self) -> None:
        """Write into the metrics how busy the engine is."""
        if self._metrics:
            self._metrics.load(self.runnable.load())


def _status(error: BaseException) -> int:
    """Return the status of what a request ends with, also where nobody reads it any more."""
    if isinstance(error, StableDiffusionError):
        return error.status
    gone = isinstance(error, (asyncio.CancelledError, GeneratorExit, ClientDisconnect))
    return Cancelled.status if gone else 500


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _end_of(ticket: Ticket) -> asyncio.Future[None]:
    """Return a future that is done when the ticket has ended, in whatever way.

    (`asyncio.wrap_future` ties the two futures into a cycle: the images of every request would stay
    in memory until Python looks for such cycles, which it does rarely.)
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def set_ended() -> None:
        if not ended.done():
            ended.set_result(None)

    def from_engine(_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(set_ended)

    ticket.future.add_done_callback(from_engine)
    return ended
