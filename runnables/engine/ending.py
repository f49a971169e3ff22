"""How a ticket ends: exactly once, with images or with an error its caller can read."""

from __future__ import annotations

import logging

from runnables.accelerators.base import Accelerator
from runnables.engine.decode import to_image
from runnables.engine.plan import Request
from runnables.errors import Cancelled, GenerationFailed, StableDiffusionError
from runnables.extensions import safety
from runnables.ticket import Drawn, Progress, Result, State, Ticket

logger = logging.getLogger(__name__)


def deliver(
    request: Request, timings: dict[str, float], flagged: set[int], policy: safety.Policy
) -> None:
    """In an image thread: pixels to images, and the future's end."""
    try:
        drawn = []
        for seed, pixels in sorted(request.finished.items()):
            image = to_image(pixels)
            if seed in flagged:
                drawn.append(Drawn(safety.filtered(image, policy), seed, "content_filtered"))
            else:
                drawn.append(Drawn(image, seed))
        result = Result(tuple(drawn), request.parameters, timings, request.cost_units)
        settle(request.ticket, result)
    except Exception as error:
        logger.exception("an image could not be made")
        settle(request.ticket, GenerationFailed(f"the image could not be made: {error}"))
    finally:
        request.release()


def settle(ticket: Ticket, outcome: Result | BaseException) -> None:
    """End the ticket's future, once."""
    steps = ticket.progress.steps
    if ticket.future.done():
        return
    if isinstance(outcome, Result):
        ticket.progress = Progress("done", steps, steps)
        ticket.future.set_result(outcome)
    else:
        state: State = "cancelled" if isinstance(outcome, Cancelled) else "failed"
        ticket.progress = Progress(state, ticket.progress.step, steps)
        ticket.future.set_exception(outcome)


def told(error: BaseException, accelerator: Accelerator) -> StableDiffusionError:
    """What the caller is told; errors that were not written for it are logged."""
    if isinstance(error, StableDiffusionError):
        return error
    logger.error("drawing failed", exc_info=error)
    if accelerator.is_out_of_memory(error):
        return GenerationFailed("out of memory: ask for a smaller image or fewer images")
    return GenerationFailed("drawing this image failed; the log says why")


def flagged(request: Request, policy: safety.Policy) -> set[int] | None:
    """Seeds of the images that the model's safety checker objects to; None: it is not asked."""
    base = request.stages[0][0]
    if not safety.applies(base, policy, request.parameters.safety_check):
        return None
    seeds = sorted(request.finished)
    flags = safety.flagged(base, [to_image(request.finished[seed]) for seed in seeds])
    return {seed for seed, flag in zip(seeds, flags, strict=True) if flag}
