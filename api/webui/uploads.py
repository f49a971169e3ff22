"""Images in JSON: base64, with or without a data URL's head, or a URL that may be fetched."""

from __future__ import annotations

import base64
import binascii

from PIL.Image import Image
from starlette.concurrency import run_in_threadpool

from api.http.fetch import Fetcher
from runnables.errors import UnsupportedImage
from runnables.images import codec
from runnables.settings import Settings


async def image(text: str, field: str, settings: Settings) -> Image:
    """Return the image, RGB. Raise as `read`, and UnsupportedImage, PayloadTooLarge."""
    data = await read(text, field, settings)
    return await run_in_threadpool(codec.decode, data, max_pixels=settings.max_pixels, field=field)


async def mask(text: str, settings: Settings) -> Image:
    """Return the mask, grey. Raise as `image`."""
    data = await read(text, "mask", settings)
    return await run_in_threadpool(codec.decode_mask, data, max_pixels=settings.max_pixels)


async def read(text: str, field: str, settings: Settings) -> bytes:
    """Return the image's file.

    Raises:
        UnsupportedImage: The text is not base64.
        InvalidInput: The text is a URL that may not be fetched.
    """
    if text.startswith(("http://", "https://")):
        return await Fetcher(settings).get(text, field)
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnsupportedImage(f"{field} is not base64", loc=(field,)) from error
