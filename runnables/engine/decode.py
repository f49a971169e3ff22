"""Finished latents become pixels, a few images at a time."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from itertools import groupby

from PIL import Image
from torch import Tensor, bfloat16, dtype, float16, isfinite, stack, uint8

from runnables.accelerators.base import Accelerator
from runnables.engine.row import Row
from runnables.errors import GenerationFailed

Pixels = Tensor | Exception  # (H, W, 3) uint8 on the CPU, or why there are none


def decode(rows: Sequence[Row], accelerator: Accelerator) -> Iterator[tuple[Row, Pixels]]:
    """Return each row with its pixels, or with its error."""
    for chunk in chunks(rows, accelerator):
        yield from _decode_chunk(chunk, accelerator)


def chunks(rows: Sequence[Row], accelerator: Accelerator) -> Iterator[list[Row]]:
    """Return rows of one size and model that can be decoded in one call."""
    for key, group in groupby(rows, key=lambda row: row.key):
        members = list(group)
        size = chunk_size(members[0], key.area, accelerator)
        for first in range(0, len(members), size):
            yield members[first : first + size]


def chunk_size(row: Row, area: int, accelerator: Accelerator) -> int:
    """Return how many images of this model and latent area are decoded in one call."""
    return max(1, int(min(accelerator.decode_limit(area), row.work.model.memory.images(area))))


def decode_call(rows: Sequence[Row], *, again: bool = True) -> list[Pixels]:
    """Decode rows of one size and model in one call; an error is for all of them.

    Args:
        again: in float32, where half precision overflows (SDXL's does); else that is an error.
    """
    family = rows[0].stage.family
    latents = stack([family.finished(row.latents, inpainted=row.start.inpaints) for row in rows])
    pixels = family.to_pixels(latents)
    if isfinite(latents).all() and not isfinite(pixels).all():
        if not again:
            raise OverflowError("the VAE overflows in half precision")
        pixels = family.to_pixels(latents, fp32=True)
    return [_checked(picture, family.dtype) for picture in pixels]


def _decode_chunk(rows: list[Row], accelerator: Accelerator) -> Iterator[tuple[Row, Pixels]]:
    try:
        pixels = decode_call(rows)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they hold the failed call's tensors
        accelerator.free_memory()
        if len(rows) == 1:
            yield rows[0], error
            return
        for row in rows:
            yield from _decode_chunk([row], accelerator)
        return
    yield from zip(rows, pixels, strict=True)


#: the settings of SD_PRECISION that may help where a number format overflows
WIDER = {float16: ", or SD_PRECISION=bf16 or fp32", bfloat16: ", or SD_PRECISION=fp32"}


def _checked(pixels: Tensor, dtype: dtype) -> Pixels:
    """Turn (3, H, W) in 0..1 into (H, W, 3) uint8 on the CPU; `dtype` is the model's."""
    if not isfinite(pixels).all():
        return GenerationFailed(
            "the model produced values that are not numbers; try another seed or a lower "
            f"guidance_scale{WIDER.get(dtype, '')}"
        )
    return (pixels * 255).round().to(uint8).permute(1, 2, 0).contiguous().cpu()


def to_image(pixels: Tensor) -> Image.Image:
    """Turn (H, W, 3) uint8 into an RGB image."""
    return Image.fromarray(pixels.numpy())
