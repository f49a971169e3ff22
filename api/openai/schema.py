"""The paths of `/v1` in the OpenAPI document."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import BaseModel, Field

from api.http.operations import (
    BINARY,
    GENERATING,
    IMAGE_KINDS,
    LOOKING,
    Schema,
    components,
    fields_of,
    file,
    operation,
    path_field,
    query,
    reference,
)
from api.openai.translate import ImagesBody
from runnables.parameters import ImageToImage, Inpaint, Parameters, TextToImage
from runnables.ticket import FinishReason

_operation = partial(operation, tag="openai", error="OpenAIError")
MASK = "PNG; what is transparent is repainted. Without it the image's transparency is the mask."
#: schema of a request's body -> the task whose parameters may stand in it, its files, and what it
#: must have
BODIES: dict[str, tuple[type[Parameters], dict[str, Schema], list[str]]] = {
    "OpenAIImageRequest": (TextToImage, {}, ["prompt"]),
    "OpenAIImageEditRequest": (
        Inpaint,
        {"image": BINARY, "mask": {**BINARY, "description": MASK}},
        ["image", "prompt"],
    ),
    "OpenAIImageVariationRequest": (ImageToImage, {"image": BINARY}, ["image"]),
}


class OpenAIImage(BaseModel):
    """One image: base64, or an address where `response_format` is url."""

    b64_json: str = ""
    url: str = ""
    seed: int
    finish_reason: FinishReason


class OpenAIImages(BaseModel):
    """The answer with all images of a request."""

    created: int = Field(description="Seconds since 1970")
    background: Literal["opaque"]
    output_format: Literal["png", "webp", "jpeg"]
    size: str = Field(description="WIDTHxHEIGHT")
    data: list[OpenAIImage]


class OpenAIModel(BaseModel):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModels(BaseModel):
    """All models, the default first."""

    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIProblem(BaseModel):
    """The problem of a request, in the form that OpenAI's SDKs read."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error."""

    error: OpenAIProblem


def paths() -> Schema:
    """Return path -> method -> operation."""
    return {
        "/v1/images/generations": {
            "post": _images("createImage", "Generate", "OpenAIImageRequest", "application/json")
        },
        "/v1/images/edits": {
            "post": _images("createImageEdit", "Change an image", "OpenAIImageEditRequest")
        },
        "/v1/images/variations": {
            "post": _images("createImageVariation", "Vary an image", "OpenAIImageVariationRequest")
        },
        "/v1/images/files/{name}": {"get": _file()},
        "/v1/models": {"get": _operation("listOpenAIModels", "Models", "OpenAIModels")},
        "/v1/models/{id}": {
            "get": _operation(
                "getOpenAIModel",
                "A model",
                "OpenAIModel",
                errors=(404, *LOOKING),
                parameters=[path_field("id", "Its name")],
            )
        },
    }


def schemas() -> Schema:
    """Return what the paths refer to."""
    answers = (OpenAIImages, OpenAIModels, OpenAIModel, OpenAIError)
    named = {model.__name__: model for model in answers}
    return {name: _body(name) for name in BODIES} | components(named, "serialization")


def _images(id: str, summary: str, body: str, media: str = "multipart/form-data") -> Schema:
    images = {
        "description": "The images, or events while `stream` is true",
        "content": {
            "application/json": {"schema": reference("OpenAIImages")},
            "text/event-stream": {"schema": {"type": "string"}},
        },
        "headers": {
            "x-ignored": {
                "schema": {"type": "string"},
                "description": "The fields of the request that had no effect",
            }
        },
    }
    content = {media: {"schema": reference(body)}}
    return _operation(id, summary, images, errors=GENERATING, body=content)


def _file() -> Schema:
    text = {"type": "string"}
    return _operation(
        "getImageFile",
        "An image that an answer has the address of",
        file("The image", *IMAGE_KINDS),
        errors=(404,),
        parameters=[
            path_field("name", "A random one"),
            query("expires", text, "Seconds since 1970"),
            query("signature", text, "Of name and expiry"),
        ],
        open=True,
    )


def _body(name: str) -> Schema:
    """Return OpenAI's fields, and those of ours that have no other name there."""
    model, files, required = BODIES[name]
    unwanted = {"num_images_per_prompt", *({"prompt"} - set(required))}
    ours = {name: field for name, field in fields_of(model).items() if name not in unwanted}
    return {
        "title": name,
        "type": "object",
        "properties": {**ours, **fields_of(ImagesBody), **files},
        "required": required,
        "additionalProperties": False,
        **({} if files else {"examples": [{"prompt": "View of a cyberpunk city", "n": 2}]}),
    }
