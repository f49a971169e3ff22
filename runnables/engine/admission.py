"""A ticket becomes the work that its parameters ask for, and is admitted or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial

from runnables.accelerators.base import Accelerator
from runnables.engine import denoise, enlarge
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.model_pool import ModelPool, Waiting
from runnables.engine.outcome import readable
from runnables.engine.scheduling import Queue
from runnables.engine.work import Work
from runnables.errors import NotReady
from runnables.parameters import Upscale
from runnables.ticket import Inputs, Plan, Ticket, settle


@dataclass(eq=False)
class Admission:
    """Requests come in here, from any thread.

    Args:
        accept: called with a ticket whose future only the engine ends from then on.
        refuse: called with an accepted ticket that was refused after all.
    """

    pool: ModelPool
    queue: Queue
    accelerator: Accelerator
    _: KW_ONLY
    accept: Callable[[Ticket], None]
    refuse: Callable[[Ticket], None]

    def submit(self, ticket: Ticket, inputs: Inputs) -> None:
        """Plan and admit a request, or let it wait for its model; the ticket's future ends later.

        Raises:
            InvalidInput, OverCapacity, NotReady: refused, the future is left alone.
        """
        model = self.pool.enter(ticket.parameters.model)
        if model is None:
            self._wait_for_model(ticket, inputs)
            return
        try:
            work = _plan(model, ticket, inputs)
            work.read()
            self._begin(ticket)
            self.queue.admit(work)
        except BaseException:
            self.refuse(ticket)
            self.pool.leave(model.name)
            raise
        self._leave_at_end(ticket, model.name)

    def admit_waiting(self, waiting: Waiting, model: LoadedModel) -> None:
        """Have a request that waited for its model admitted; errors end its future.

        What it names is read from disk on the thread that reads models: no step waits for a disk.
        """
        self._leave_at_end(waiting.ticket, model.name)
        self.pool.read_aside(partial(self._admit_waiting, waiting, model))

    def _admit_waiting(self, waiting: Waiting, model: LoadedModel) -> None:
        ticket = waiting.ticket
        try:
            work = _plan(model, ticket, waiting.inputs)
            work.read()
            self.queue.admit(work)
        except Exception as error:
            settle(ticket, readable(error, self.accelerator))

    def plan(self, ticket: Ticket, inputs: Inputs) -> Plan:
        """Return what `submit` would do; load no model, LoRA or ControlNet (but a named upscaler).

        Of a model that is not loaded nothing is known yet: the parameters stay as they are.

        Raises:
            InvalidInput: as `submit`, but for what only loading shows.
        """
        model = self.pool.enter(ticket.parameters.model)
        if model is None:
            return Plan(ticket.parameters, 0, 0.0)
        try:
            work = _plan(model, ticket, inputs)
            return Plan(work.parameters, work.steps, work.share_s, model.base.number)
        finally:
            self.pool.leave(model.name)

    def _begin(self, ticket: Ticket) -> None:
        """Mark the ticket as accepted: from here on only the engine ends its future."""
        ticket.future.set_running_or_notify_cancel()
        self.accept(ticket)

    def _wait_for_model(self, ticket: Ticket, inputs: Inputs) -> None:
        if self.queue.closed:
            raise NotReady("the service is stopping and takes no new requests")
        self._begin(ticket)
        try:
            self.pool.wait_for(ticket, inputs)
        except BaseException:
            self.refuse(ticket)
            raise

    def _leave_at_end(self, ticket: Ticket, model: str) -> None:
        ticket.future.add_done_callback(lambda _: self.pool.leave(model))


def _plan(model: LoadedModel, ticket: Ticket, inputs: Inputs) -> Work:
    """Decide everything about a request, and load nothing that it names but an upscaler.

    Raises:
        InvalidInput: (400, 404, 413) naming the field that cannot be served.
    """
    if isinstance(ticket.parameters, Upscale):
        return enlarge.plan(model, ticket, inputs)
    return denoise.plan(model, ticket, inputs)
