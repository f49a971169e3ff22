"""Latents to pixels, a few images a call, with a second try where half precision overflows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from PIL import Image
from torch import Tensor, isfinite, stack, uint8

from runnables.accelerators.base import Accelerator
from runnables.engine.row import Row
from runnables.errors import GenerationFailed
from runnables.families.base import Pipeline


def decode(
    rows: Sequence[Row], accelerator: Accelerator
) -> Iterator[tuple[Row, Tensor | Exception]]:
    """Each row with its pixels, (H, W, 3) uint8 on the CPU, or with the error that ends it."""
    for _, group in groupby(rows, key=lambda row: row.key):
        members = list(group)
        area, memory = members[0].key.area, members[0].request.planner.memory
        size = max(1, int(min(accelerator.decode_limit(area), memory.images(area))))
        for first in range(0, len(members), size):
            yield from _decode_chunk(members[first : first + size], accelerator)


def _decode_chunk(
    rows: list[Row], accelerator: Accelerator
) -> Iterator[tuple[Row, Tensor | Exception]]:
    try:
        latents = stack([row.latents for row in rows])
        pixels = _decoded(rows[0].stage.pipeline, latents)
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


def _decoded(pipeline: Pipeline, latents: Tensor) -> Tensor:
    pixels = pipeline.decode(latents)
    overflowed = isfinite(latents).all() and not isfinite(pixels).all()
    return pipeline.decode_in_fp32(latents) if overflowed else pixels


def _checked(pixels: Tensor) -> Tensor | Exception:
    """(3, H, W) in 0..1 -> (H, W, 3) uint8 on the CPU."""
    if not isfinite(pixels).all():
        return GenerationFailed(
            "the model produced values that are not numbers; try another seed, a lower "
            "guidance_scale, or SD_PRECISION=fp32"
        )
    return (pixels * 255).round().to(uint8).permute(1, 2, 0).contiguous().cpu()


def to_image(pixels: Tensor) -> Image.Image:
    """(H, W, 3) uint8 -> RGB image."""
    return Image.fromarray(pixels.numpy())
