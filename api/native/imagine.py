"""`GET /imagine?prompt=`, which answers a PNG: Ray Serve's Stable Diffusion examples call it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from api.http.validation import validated
from runnables.errors import InvalidInput
from runnables.parameters import TextToImage

#: what has only one value here
NOT_IN_QUERY = {"num_images_per_prompt", "output_format"}


def read(request: Request) -> TextToImage:
    """Return the query's fields as parameters: ours, and `img_size` for a square."""
    fields: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in fields:
            raise InvalidInput(f"{name} is sent more than once", loc=(name,))
        fields[name] = value
    if "img_size" in fields:
        fields["height"] = fields["width"] = fields.pop("img_size")
    parameters = validated(TextToImage, fields)
    if parameters.num_images_per_prompt > 1:
        raise InvalidInput("one image at a time", loc=("num_images_per_prompt",))
    if parameters.output_format not in (None, "png"):
        raise InvalidInput("this endpoint answers a PNG", loc=("output_format",))
    return parameters
