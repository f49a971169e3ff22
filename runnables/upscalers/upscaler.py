"""Pictures are enlarged by Pillow's Lanczos, or by Swin2SR (arXiv:2209.11345) in tiles.

An upscaler is a generator that yields after each tile, so that the owner of the device can do other
things between tiles.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import product
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from runnables.errors import GenerationFailed

Tiles = Generator[None, None, Image.Image]


class Cut(NamedTuple):
    """A cut says how a picture becomes tiles, in pixels of the input, multiples of the window.

    Attributes:
        tile: what one call sees along each side: bounds memory and the time between steps.
        overlap: of neighbouring tiles.
        margin: of the overlap, at either end, where a tile lacks what lies beyond it: not used.
    """

    tile: int = 128
    overlap: int = 32
    margin: int = 8


CPU_CUT = Cut(64, 24)  # a call takes a quarter of the time, a whole picture half as much again


class Upscaler(Protocol):
    """An upscaler enlarges pictures.

    Attributes:
        scale: how many times it enlarges by itself.
    """

    @property
    def name(self) -> str: ...
    @property
    def scale(self) -> int: ...
    def turns(self, size: tuple[int, int]) -> int:
        """Return how many times `enlarge` yields for an image of (height, width)."""
        ...

    def enlarge(self, image: Image.Image, size: tuple[int, int]) -> Tiles:
        """Return an RGB image at another size, (height, width)."""
        ...


class Lanczos:
    """Pillow resamples the picture, in a single tile."""

    name = "lanczos"
    scale = 2

    def turns(self, size: tuple[int, int]) -> int:
        return 1

    def enlarge(self, image: Image.Image, size: tuple[int, int]) -> Tiles:
        larger = _resized(image, size)
        yield
        return larger


class Swin2SR:
    """Swin2SR is a transformer that enlarges by its own scale; Lanczos does the rest.

    Args:
        model: transformers' Swin2SRForImageSuperResolution.
        cut: default: as suits the model's device.
    """

    def __init__(self, name: str, model: Any, cut: Cut | None = None) -> None:
        self.name = name
        self.scale = int(model.config.upscale)
        self._model = model
        self._cut = cut or (CPU_CUT if model.device.type == "cpu" else Cut())

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._model.parameters())

    def turns(self, size: tuple[int, int]) -> int:
        return len(spans(size[0], self._cut)) * len(spans(size[1], self._cut))

    def enlarge(self, image: Image.Image, size: tuple[int, int]) -> Tiles:
        pixels, scale = np.asarray(image.convert("RGB")), self.scale
        canvas = Image.new("RGB", (image.width * scale, image.height * scale))
        for rows, columns in product(spans(image.height, self._cut), spans(image.width, self._cut)):
            tile = self._call(pixels[rows.first : rows.last, columns.first : columns.last])
            inside = tile[rows.inside(scale), columns.inside(scale)]
            mask = np.outer(rows.weights(scale), columns.weights(scale))
            canvas.paste(
                Image.fromarray(np.ascontiguousarray(inside)),
                (columns.start * scale, rows.start * scale),
                Image.fromarray((mask * 255).round().astype(np.uint8)),
            )
            yield
        return _resized(canvas, size)

    def _call(self, pixels: np.ndarray) -> np.ndarray:
        """Turn (H, W, 3) uint8 into (H x scale, W x scale, 3), padded as Swin2SR needs."""
        height, width, _ = pixels.shape
        window = int(self._model.config.window_size)
        below, right = ((side // window + 1) * window - side for side in (height, width))
        padded = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="symmetric")
        sample = torch.from_numpy(padded).to(self._model.device).permute(2, 0, 1)[None]
        with torch.inference_mode():
            larger = self._model(sample / 255).reconstruction[0].float()
        larger = larger[:, : height * self.scale, : width * self.scale]
        if not torch.isfinite(larger).all():
            raise GenerationFailed(f"{self.name} produced values that are not numbers")
        larger = (larger.clamp(0, 1) * 255).round().to(torch.uint8)
        array: np.ndarray = larger.permute(1, 2, 0).cpu().numpy()
        return array


class Span(NamedTuple):
    """A span is one tile along one axis, in pixels of the input.

    Attributes:
        first, last: what the model sees.
        start, stop: what of it is used.
        ramp: over so many pixels from `start` it is blended with the tile before.
    """

    first: int
    last: int
    start: int
    stop: int
    ramp: int

    def inside(self, scale: int) -> slice:
        """Return the part of the tile's output that is used."""
        return slice((self.start - self.first) * scale, (self.stop - self.first) * scale)

    def weights(self, scale: int) -> np.ndarray:
        """Return the weight of each used pixel in the output: rising from 0, then 1."""
        weights = np.ones((self.stop - self.start) * scale)
        rise = self.ramp * scale
        weights[:rise] = (np.arange(rise) + 0.5) / max(rise, 1)
        return weights


def spans(length: int, cut: Cut) -> list[Span]:
    """Return the tiles along an axis of this many pixels."""
    found, (tile, overlap, margin) = [], cut
    for first in range(0, max(length - overlap, 1), tile - overlap):
        last = min(first + tile, length)
        start = first + margin if first else 0
        stop = last - margin if last < length else length
        found.append(Span(first, last, start, stop, overlap - 2 * margin if first else 0))
    return found


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.LANCZOS)
