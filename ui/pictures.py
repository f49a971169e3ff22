"""Pictures on the page as the files of a request."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from ui.client import ServiceError


def files(task: str, picture: str | None, painted: Mapping[str, Any] | None) -> dict[str, bytes]:
    """Return `img` and `mask` as this task takes them.

    Args:
        picture: The path of the image to start from.
        painted: The mask editor's value: `background`, and `layers` painted over it (RGBA).

    Raises:
        ServiceError: A picture is missing.
    """
    if task == "img2img":
        if not picture:
            raise ServiceError("an image to start from is needed", field="img")
        return {"img": Path(picture).read_bytes()}
    if task == "inpaint":
        return _inpaint(painted or {})
    return {}


def _inpaint(painted: Mapping[str, Any]) -> dict[str, bytes]:
    background = painted.get("background")
    if background is None:
        raise ServiceError("an image to repaint is needed", field="img")
    mask = mask_of(painted.get("layers") or [], background.size)
    if mask.getbbox() is None:
        raise ServiceError("paint over what is to change", field="mask")
    return {"img": _png(background.convert("RGB")), "mask": _png(mask)}


def mask_of(layers: list[Image.Image], size: tuple[int, int]) -> Image.Image:
    """Return a mask in 8-bit grey: white where any layer was painted on, else black."""
    mask = Image.new("L", size, 0)
    for layer in layers:
        painted = layer.convert("RGBA").getchannel("A").resize(size)
        mask = ImageChops.lighter(mask, painted.point(lambda alpha: 255 if alpha else 0))
    return mask


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
