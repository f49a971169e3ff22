"""Images in JSON: base64, with or without a data URL's head, or a URL where they are fetched."""

from __future__ import annotations

import base64
import binascii

from api.http.fetch import Fetcher
from runnables.errors import UnsupportedImage
from runnables.settings import Settings


async def read(text: str, field: str, settings: Settings) -> bytes:
    """The image's file.

    Raises:
        UnsupportedImage: not base64.
        InvalidInput: it is a URL, and may not be fetched.
    """
    if text.startswith(("http://", "https://")):
        return await Fetcher(settings).get(text, field)
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnsupportedImage(f"{field} is not base64", loc=(field,)) from error
