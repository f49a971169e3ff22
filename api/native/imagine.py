"""`GET /imagine?prompt=` answers a PNG: what Ray Serve's Stable Diffusion examples speak."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.generation import Drawing
from api.http import request_id, responses
from api.http.forms import Form
from api.http.operations import BINARY, DRAWING, Schema, is_plain, operation, query, schema_of
from api.http.validation import validated
from runnables.errors import InvalidInput
from runnables.parameters import MAX_SIZE, TextToImage

#: what has only one value here
NOT_IN_QUERY = {"num_images_per_prompt", "output_format"}


class ImagineRoute:
    """The handler."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing

    def routes(self) -> list[Route]:
        """To be mounted at the root."""
        return [Route("/imagine", self._imagine, methods=["GET"])]

    async def _imagine(self, request: Request) -> Response:
        drawing = self._drawing
        with drawing.admitted(request, "txt2img") as owner:
            parameters = _parameters(request)
            result = await drawing.draw(request, owner, Form(parameters))
            return await responses.image_response(
                result, "png", drawing.settings, request_id.of(request)
            )


def _parameters(request: Request) -> TextToImage:
    """The query's fields: ours, and `img_size` for a square."""
    fields: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in fields:
            raise InvalidInput(f"{name} is given more than once", loc=(name,))
        fields[name] = value
    if "img_size" in fields:
        fields["height"] = fields["width"] = fields.pop("img_size")
    wanted = validated(TextToImage, fields)
    if wanted.num_images_per_prompt > 1:
        raise InvalidInput("one image at a time", loc=("num_images_per_prompt",))
    return wanted


def paths() -> Schema:
    """Path -> method -> operation, for the OpenAPI document."""
    fields = schema_of(TextToImage)["properties"]
    kept = {
        name: field
        for name, field in fields.items()
        if is_plain(field) and name not in NOT_IN_QUERY
    }
    size = {"type": "integer", "minimum": 8, "maximum": MAX_SIZE}
    parameters = [
        query(name, field, field.get("description", ""), name == "prompt")
        for name, field in {**kept, "img_size": size}.items()
    ]
    image = {"description": "The image", "content": {"image/png": {"schema": BINARY}}}
    drawn = operation("Draw a PNG", {"200": image}, errors=DRAWING, parameters=parameters)
    return {"/imagine": {"get": drawn}}
