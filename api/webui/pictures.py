"""The images of a request, made to fit as the WebUI's resize modes say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from api.webui import controlnet
from api.webui.body import GenerationBody
from api.webui.controlnet import Unit
from api.webui.translate import CROP, rounded
from runnables.errors import InvalidInput
from runnables.ticket import Inputs


def prepared(
    body: GenerationBody,
    image: Image.Image | None,
    mask: Image.Image | None,
    units: Sequence[Unit],
    controls: Sequence[Image.Image | None],
) -> Inputs:
    """Return the images as the engine takes them; it stretches them itself.

    Args:
        image: The image of img2img, RGB.
        mask: The mask, grey.
        controls: The image of each unit, RGB; a unit without one is controlled by `image`.

    Raises:
        InvalidInput: A unit has no image at all.
    """
    fields = rounded(body)
    size = (fields.width, fields.height) if fields.width and fields.height else None
    fitted = []
    for unit, control in zip(units, controls, strict=True):
        source = control or image
        if source is None:
            raise InvalidInput("a ControlNet unit needs an image", loc=controlnet.LOC)
        fitted.append(controlled(source, unit, size))
    if size and body.resize_mode == CROP:
        image, mask = image and ImageOps.fit(image, size), mask and ImageOps.fit(mask, size)
    if mask and body.inpainting_mask_invert:
        mask = ImageOps.invert(mask)
    return Inputs(image, mask, tuple(fitted))


def controlled(image: Image.Image, unit: Unit, size: tuple[int, int] | None) -> Image.Image:
    """Return a unit's image as its `resize_mode` says.

    Args:
        size: The (width, height) of the result, where that is known.
    """
    if size is None or unit.fit == 0:
        return image
    if unit.fit == 1:
        return ImageOps.fit(image, size)
    return ImageOps.pad(image, size, color=_border(image))


def _border(image: Image.Image) -> tuple[int, ...]:
    """Return the median colour of an RGB image's border, which fills what is around it."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.median(border, axis=0))
