"""Results in OpenAI's form, with seed and finish reason beside each image."""

from __future__ import annotations

import base64
import time
from typing import Any

from api.generation import Generation
from api.openai.translate import Asked
from runnables.errors import InvalidInput
from runnables.images import files
from runnables.ticket import Drawn, Result


class Moderated(InvalidInput):
    """The operator's safety policy let none of the images through."""

    code = "moderation_blocked"


def body(result: Result, asked: Asked, generation: Generation) -> dict[str, Any]:
    """The answer of images.generate and images.edit. Raises Moderated."""
    check(result, generation)
    first = result.images[0].image
    return {
        "created": int(time.time()),
        "background": "opaque",
        "output_format": asked.output_format,
        "size": f"{first.width}x{first.height}",
        "data": [image(result, drawn, asked, generation) for drawn in result.images],
    }


def image(result: Result, drawn: Drawn, asked: Asked, generation: Generation) -> dict[str, Any]:
    """One entry of `data`. URLs hold the image itself: nothing is stored for them."""
    kind = asked.output_format
    data = files.image_file(result, drawn, kind, generation.settings)
    text = base64.b64encode(data).decode()
    as_url = asked.response_format == "url" and not asked.stream
    content = {"url": f"data:image/{kind};base64,{text}"} if as_url else {"b64_json": text}
    return {**content, "seed": drawn.seed, "finish_reason": drawn.finish_reason}


def check(result: Result, generation: Generation) -> None:
    """Raises Moderated where there is nothing to show."""
    if generation.settings.safety == "block" and all(
        drawn.finish_reason == "content_filtered" for drawn in result.images
    ):
        raise Moderated("the safety checker objects to every image of this request")
