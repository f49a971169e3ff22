"""A request ends here: latents become pixels, pixels images, and its future gets one result."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress
from itertools import groupby

from PIL import Image
from torch import Tensor, isfinite, stack, uint8

from runnables.accelerators.base import Accelerator
from runnables.engine.denoise import Denoise
from runnables.engine.row import Row
from runnables.errors import Cancelled, GenerationFailed, StableDiffusionError
from runnables.extensions.safety import Policy, filtered
from runnables.families.base import Family
from runnables.ticket import GeneratedImage, Progress, Result, State, Ticket

logger = logging.getLogger(__name__)

# -- latents to pixels --------------------------------------------------------------------------


def decode(
    rows: Sequence[Row], accelerator: Accelerator
) -> Iterator[tuple[Row, Tensor | Exception]]:
    """Return each row with its pixels, (H, W, 3) uint8 on the CPU, or with its error."""
    for _, group in groupby(rows, key=lambda row: row.key):
        members = list(group)
        area, memory = members[0].key.area, members[0].work.model.memory
        size = max(1, int(min(accelerator.decode_limit(area), memory.images(area))))
        for first in range(0, len(members), size):
            yield from _decode_chunk(members[first : first + size], accelerator)


def _decode_chunk(
    rows: list[Row], accelerator: Accelerator
) -> Iterator[tuple[Row, Tensor | Exception]]:
    family = rows[0].stage.family
    try:
        latents = [family.finished(row.latents, inpainted=row.start.inpaints) for row in rows]
        pixels = _decoded(family, stack(latents))
    except Exception as error:
        accelerator.free_memory()
        if len(rows) == 1:
            yield rows[0], error
            return
        for row in rows:
            yield from _decode_chunk([row], accelerator)
        return
    for row, picture in zip(rows, pixels, strict=True):
        yield row, _checked(picture)


def _decoded(family: Family, latents: Tensor) -> Tensor:
    """Decode to (N, 3, H, W), again in float32 where half precision overflows (SDXL's does)."""
    pixels = family.to_pixels(latents)
    overflowed = isfinite(latents).all() and not isfinite(pixels).all()
    return family.to_pixels(latents, fp32=True) if overflowed else pixels


def _checked(pixels: Tensor) -> Tensor | Exception:
    """Turn (3, H, W) in 0..1 into (H, W, 3) uint8 on the CPU."""
    if not isfinite(pixels).all():
        return GenerationFailed(
            "the model produced values that are not numbers; try another seed, a lower "
            "guidance_scale, or SD_PRECISION=fp32"
        )
    return (pixels * 255).round().to(uint8).permute(1, 2, 0).contiguous().cpu()


def to_image(pixels: Tensor) -> Image.Image:
    """Turn (H, W, 3) uint8 into an RGB image."""
    return Image.fromarray(pixels.numpy())


# -- images to the caller -----------------------------------------------------------------------


def flagged(work: Denoise) -> set[int] | None:
    """Return the seeds of the images that an extension objects to; None where none was checked."""
    seeds = sorted(work.finished)
    pictures = [to_image(work.finished[seed]) for seed in seeds]
    opinions = [one.review(work.parameters, pictures) for one in work.model.extensions]
    known = [opinion for opinion in opinions if opinion is not None]
    if not known:
        return None
    return {seed for seed, flags in zip(seeds, zip(*known, strict=True), strict=True) if any(flags)}


def deliver(work: Denoise, timings: dict[str, float], flagged: set[int], policy: Policy) -> None:
    """Turn pixels into images and end the future, in an image thread."""
    try:
        images = []
        hint = work.model.base.checkpoint.hint(work.parameters.prompt)
        for seed, pixels in sorted(work.finished.items()):
            image = to_image(pixels)
            if seed in flagged:
                image = filtered(image, policy)
                images.append(GeneratedImage(image, seed, "content_filtered", hint))
            else:
                images.append(GeneratedImage(image, seed, hint=hint))
        settle(work.ticket, Result(tuple(images), work.parameters, timings, work.cost_units))
    except Exception as error:
        logger.exception("an image could not be made")
        settle(work.ticket, GenerationFailed(f"the image could not be made: {error}"))
    finally:
        work.release()


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
