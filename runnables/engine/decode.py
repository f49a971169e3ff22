"""Finished latents become pixels, a few images at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from PIL import Image
from torch import Tensor, isfinite, stack, uint8

from runnables.accelerators.base import Accelerator
from runnables.engine.row import Row
from runnables.errors import GenerationFailed
from runnables.families.base import Family


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
