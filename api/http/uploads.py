"""Images in JSON: base64, with or without a data URL's head, or a URL that may be fetched."""

from __future__ import annotations

from PIL.Image import Image

from api.http.decoding import decoded
from api.http.fetch import Fetcher
from runnables.images import codec
from runnables.settings import Settings


async def image(text: str, field: str, settings: Settings) -> Image:
    """Return the image, RGB. Raise as `read`, and UnsupportedImage, PayloadTooLarge."""
    data = await read(text, field, settings)
    return await decoded(codec.decode, data, max_pixels=settings.max_pixels, field=field)


async def mask(text: str, settings: Settings) -> Image:
    """Return the mask, grey. Raise as `image`."""
    data = await read(text, "mask", settings)
    limit = settings.max_pixels
    return await decoded(codec.decode_mask, data, max_pixels=limit, alpha=True)


async def read(text: str, field: str, settings: Settings) -> bytes:
    """Return the image's file.

    Raises:
        UnsupportedImage: The text is not base64.
        InvalidInput: The text is a URL that may not be fetched.
    """
    if text.startswith(("http://", "https://")):
        return await Fetcher(settings).get(text, field)
    return await decoded(codec.from_base64, text, field)
