"""The size in pixels is the requested one, the model's own, or an input's shape at its area."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from runnables.errors import InvalidInput, Loc, PayloadTooLarge
from runnables.families.base import Size, Traits
from runnables.parameters import MAX_SIZE, TextToImage

if TYPE_CHECKING:
    from PIL.Image import Image


def size_of(parameters: TextToImage, image: Image | None, traits: Traits, max_pixels: int) -> Size:
    """Return the size to generate. Raise InvalidInput or PayloadTooLarge naming the field."""
    height, width = parameters.height, parameters.width
    if image is not None and (height is None or width is None):
        height, width = _fitted(image, traits, height, width)
    native = traits.native_size
    size = (height or native[0], width or native[1])
    for name, value in zip(("height", "width"), size, strict=True):
        _check_side(name, value, traits)
    check_pixels(size, max_pixels, ("height",))
    return size


def check_pixels(size: Size, max_pixels: int, loc: Loc) -> None:
    """Raise PayloadTooLarge, naming the field, for an image of too many pixels."""
    if size[0] * size[1] > max_pixels:
        raise PayloadTooLarge(
            f"height x width is {size[0]} x {size[1]}, over the limit of {max_pixels} pixels",
            loc=loc,
        )


def _fitted(image: Image, traits: Traits, height: int | None, width: int | None) -> Size:
    """Return a size of the image's shape, never squashed: with a given side, or the native area."""
    native, factor = traits.native_size, traits.size_multiple
    scale = math.sqrt(native[0] * native[1] / (image.width * image.height))
    if height or width:
        scale = height / image.height if height else (width or 0) / image.width
    return (
        height or max(factor, round(image.height * scale / factor) * factor),
        width or max(factor, round(image.width * scale / factor) * factor),
    )


def _check_side(name: str, value: int, traits: Traits) -> None:
    factor = traits.size_multiple
    if value % factor:
        nearest = max(factor, round(value / factor) * factor)
        raise InvalidInput(
            f"{name} must be a multiple of {factor}; the nearest is {nearest}", loc=(name,)
        )
    if value > MAX_SIZE:
        raise InvalidInput(
            f"{name} would be {value}, over {MAX_SIZE}: this input is too long and thin",
            loc=(name,),
        )
    if traits.largest_side and value > traits.largest_side:
        raise InvalidInput(
            f"{name} is {value}, and this model knows no side over {traits.largest_side}",
            loc=(name,),
        )
