"""Reads what a file says about its origin: its signed manifest, its metadata, its watermark.

All of it comes from the file alone: an address in it is the uploader's choice, and is not called.
"""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import Image

from runnables.images import codec, watermark
from runnables.settings import Settings

READING = {"verify": {"remote_manifest_fetch": False}}  # in the C2PA library's settings


def inspect(data: bytes, settings: Settings, field: str) -> dict[str, Any]:
    """Return `c2pa`, `metadata` and `watermark` of an image's file; null where there is none.

    Raises:
        UnsupportedImage, PayloadTooLarge: It is no image, or too large.
    """
    image = codec.decode(data, max_pixels=settings.max_pixels, field=field)
    texts = codec.read_texts(data, max_pixels=settings.max_pixels, field=field)
    return {
        "c2pa": _manifest(data),
        "metadata": texts or None,
        "watermark": _mark(image, settings.watermark),
    }


def _mark(image: Image.Image, key: str) -> dict[str, Any] | None:
    """Return whether this service's mark is found; null where the service has none."""
    if not key:
        return None
    score = watermark.score(image, key)
    return {"found": score > watermark.FOUND, "score": round(score, 1)}


def _manifest(data: bytes) -> dict[str, Any] | None:
    import c2pa

    with Image.open(io.BytesIO(data)) as image:
        kind = image.get_format_mimetype()
    context = c2pa.Context(c2pa.Settings.from_dict(READING))
    try:
        with c2pa.Reader(kind, io.BytesIO(data), context=context) as reader:
            found = json.loads(reader.json())
    except c2pa.C2paError as error:
        if "ManifestNotFound" in str(error) or "JumbfNotFound" in str(error):
            return None
        if str(error).startswith("Remote"):
            elsewhere = f"the manifest lies elsewhere and is not fetched ({error})"
            return {"state": None, "error": elsewhere, "manifest": None}
        return {"state": "Invalid", "error": str(error), "manifest": None}
    active = found.get("manifests", {}).get(found.get("active_manifest"))
    return {"state": found.get("validation_state"), "error": None, "manifest": active}
