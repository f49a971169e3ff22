"""A request's future ends here, once: with its result, or with an error for its caller."""

from __future__ import annotations

import logging
from concurrent.futures import InvalidStateError
from contextlib import suppress

from runnables.accelerators.base import Accelerator
from runnables.errors import Cancelled, DeadlineExceeded, GenerationFailed, StableDiffusionError
from runnables.ticket import Progress, Result, State, Ticket

logger = logging.getLogger(__name__)


def over(ticket: Ticket, allowed_s: float, now: float) -> StableDiffusionError | None:
    """Return what a ticket ends with where it is cancelled or late, and None while it goes on.

    Args:
        allowed_s: seconds that it may take.
        now: as time.monotonic.
    """
    if ticket.cancelled:
        return Cancelled("the request was cancelled")
    if now > ticket.submitted + allowed_s:
        return DeadlineExceeded(f"not finished within {allowed_s:.0f} s", loc=("deadline_s",))
    return None


def settle(ticket: Ticket, outcome: Result | BaseException) -> None:
    """End the ticket's future, once; of two threads that do, one succeeds."""
    steps = ticket.progress.steps
    if ticket.future.done():
        return
    with suppress(InvalidStateError):
        if isinstance(outcome, Result):
            ticket.progress = Progress("done", steps, steps)
            ticket.future.set_result(outcome)
        else:
            state: State = "cancelled" if isinstance(outcome, Cancelled) else "failed"
            ticket.progress = Progress(state, ticket.progress.step, steps)
            ticket.future.set_exception(outcome)


def readable(error: BaseException, accelerator: Accelerator) -> StableDiffusionError:
    """Return an error for the caller; one that was not written for callers is logged."""
    if isinstance(error, StableDiffusionError):
        return error
    logger.error("generating failed", exc_info=error)
    if accelerator.is_out_of_memory(error):
        return GenerationFailed("out of memory: ask for a smaller image or fewer images")
    return GenerationFailed("generating this image failed; the log says why")
