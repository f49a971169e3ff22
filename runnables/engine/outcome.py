"""The errors that requests end with: those of their time, and those that callers may read."""

from __future__ import annotations

import logging

from runnables.accelerators.base import Accelerator
from runnables.errors import Cancelled, DeadlineExceeded, GenerationFailed, StableDiffusionError
from runnables.ticket import Ticket

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


def readable(error: BaseException, accelerator: Accelerator) -> StableDiffusionError:
    """Return an error for the caller; one that was not written for callers is logged."""
    if isinstance(error, StableDiffusionError):
        return error
    logger.error("generating failed", exc_info=error)
    if accelerator.is_out_of_memory(error):
        return GenerationFailed("out of memory: ask for a smaller image or fewer images")
    return GenerationFailed("generating this image failed; the log says why")
