"""The WebUI's pictures, made to fit as its resize modes say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from api.webui import controlnet
from api.webui.body import Asked
from api.webui.controlnet import Unit
from api.webui.translate import CROP
from runnables.errors import InvalidInput
from runnables.ticket import Inputs


def prepared(
    asked: Asked,
    image: Image.Image | None,
    mask: Image.Image | None,
    units: Sequence[Unit],
    controls: Sequence[Image.Image | None],
) -> Inputs:
    """What is drawn from; what is only stretched is left to the pipeline.

    Args:
        image: RGB, of img2img.
        mask: grey.
        controls: RGB, of each unit; a unit without is controlled by the image that is redrawn.

    Raises:
        InvalidInput: a unit has no image at all.
    """
    size = (asked.width, asked.height) if asked.width and asked.height else None
    fitted = []
    for unit, control in zip(units, controls, strict=True):
        given = control or image
        if given is None:
            raise InvalidInput("a ControlNet unit needs an image", loc=controlnet.LOC)
        fitted.append(controlled(given, unit, size))
    if size and asked.resize_mode == CROP:
        image, mask = image and ImageOps.fit(image, size), mask and ImageOps.fit(mask, size)
    if mask and asked.inpainting_mask_invert:
        mask = ImageOps.invert(mask)
    return Inputs(image, mask, tuple(fitted))


def controlled(image: Image.Image, unit: Unit, size: tuple[int, int] | None) -> Image.Image:
    """A unit's image as its `resize_mode` says.

    Args:
        size: (width, height) that is drawn, where that is known.
    """
    if size is None or unit.fit == 0:
        return image
    if unit.fit == 1:
        return ImageOps.fit(image, size)
    return ImageOps.pad(image, size, color=_border(image))


def _border(image: Image.Image) -> tuple[int, ...]:
    """The median colour of an RGB image's border, which fills up what is around it."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.median(border, axis=0))
