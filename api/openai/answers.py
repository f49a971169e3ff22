"""Results in OpenAI's form, with seed and finish reason beside each image."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

from api.generation import Generation
from api.openai.translate import ImagesBody
from runnables.errors import InvalidInput
from runnables.images import files
from runnables.ticket import GeneratedImage, Result

#: keeps an image's file of a kind, and returns its address
Keep = Callable[[bytes, str], str]


class Moderated(InvalidInput):
    """An error: the operator's safety policy let none of the images through."""

    code = "moderation_blocked"


def images(result: Result, body: ImagesBody, generation: Generation, keep: Keep) -> dict[str, Any]:
    """Return the answer of images.generate and images.edit. Raise Moderated."""
    check(result, generation)
    first = result.images[0].image
    return {
        "created": int(time.time()),
        "background": "opaque",
        "output_format": body.output_format,
        "size": f"{first.width}x{first.height}",
        "data": [image(result, one, body, generation, keep) for one in result.images],
    }


def image(
    result: Result,
    one: GeneratedImage,
    body: ImagesBody,
    generation: Generation,
    keep: Keep | None = None,
) -> dict[str, Any]:
    """Return one entry of `data`: base64, or an address where there is somebody to keep it."""
    kind = body.output_format
    data = files.image_file(result, one, kind, generation.settings)
    if keep is not None and body.response_format == "url":
        content = {"url": keep(data, kind)}
    else:
        content = {"b64_json": base64.b64encode(data).decode()}
    return {**content, "seed": one.seed, "finish_reason": one.finish_reason}


def check(result: Result, generation: Generation) -> None:
    """Raise Moderated where there is nothing to show."""
    if generation.settings.safety == "block" and all(
        one.finish_reason == "content_filtered" for one in result.images
    ):
        raise Moderated("the safety checker objects to every image of this request")
