"""The paths of `/v1` in the OpenAPI document."""

from __future__ import annotations

from api.http.operations import (
    BINARY,
    GENERATING,
    LOOKING,
    Schema,
    json,
    operation,
    path_field,
    query,
    reference,
    schema_of,
)
from api.openai.translate import ImagesBody
from runnables.parameters import ImageToImage, Inpaint, Parameters, TextToImage

FORM = "OpenAIError"
KINDS = ("image/jpeg", "image/png", "image/webp")
BYTES = {"schema": BINARY}
MASK = "PNG; what is transparent is repainted. Without it the image's transparency is the mask."


def paths() -> Schema:
    """Return path -> method -> operation."""
    images = {
        "200": {
            "description": "The images, or events while `stream` is true",
            "content": {
                "application/json": {"schema": reference("OpenAIImages")},
                "text/event-stream": {"schema": {}},
            },
        }
    }
    generation = {"application/json": {"schema": _body(TextToImage)}}
    model = {"200": json(reference("OpenAIModel"))}
    listed = {"type": "object", "properties": {"data": _list(reference("OpenAIModel"))}}
    return {
        "/v1/images/generations": {
            "post": operation(
                "Generate (OpenAI)", images, errors=GENERATING, error=FORM, body=generation
            )
        },
        "/v1/images/edits": {
            "post": operation(
                "Change an image (OpenAI)", images, errors=GENERATING, error=FORM, body=_edit()
            )
        },
        "/v1/images/variations": {
            "post": operation(
                "Vary an image (OpenAI)", images, errors=GENERATING, error=FORM, body=_variation()
            )
        },
        "/v1/images/files/{name}": {
            "get": operation(
                "An image that an answer has the address of",
                {"200": {"description": "The image", "content": dict.fromkeys(KINDS, BYTES)}},
                errors=(404,),
                error=FORM,
                parameters=[
                    path_field("name", "A random one"),
                    query("expires", {"type": "string"}, "Seconds since 1970"),
                    query("signature", {"type": "string"}, "Of name and expiry"),
                ],
                open=True,
            )
        },
        "/v1/models": {
            "get": operation("Models (OpenAI)", {"200": json(listed)}, errors=LOOKING, error=FORM)
        },
        "/v1/models/{id}": {
            "get": operation(
                "A model (OpenAI)",
                model,
                errors=(404, *LOOKING),
                error=FORM,
                parameters=[path_field("id", "Its name")],
            )
        },
    }


def schemas() -> Schema:
    """Return what the paths refer to."""
    text, integer = {"type": "string"}, {"type": "integer"}
    nullable = {"type": ["string", "null"]}
    image = {"b64_json": text, "url": text, "seed": integer, "finish_reason": text}
    error = {"message": text, "type": text, "param": nullable, "code": nullable}
    return {
        "OpenAIImages": {
            "type": "object",
            "required": ["created", "data"],
            "properties": {
                "created": integer,
                "background": text,
                "output_format": text,
                "size": text,
                "data": _list({"type": "object", "properties": image}),
            },
        },
        "OpenAIModel": {
            "type": "object",
            "required": ["id", "object"],
            "properties": {"id": text, "object": text, "created": integer, "owned_by": text},
        },
        FORM: {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {"type": "object", "required": ["message", "type"], "properties": error}
            },
        },
    }


def _variation() -> Schema:
    body = _body(ImageToImage)
    fields = {name: one for name, one in body["properties"].items() if name != "prompt"}
    body["properties"], body["required"] = {**fields, "image": BINARY}, ["image"]
    return {"multipart/form-data": {"schema": body}}


def _edit() -> Schema:
    body = _body(Inpaint)
    files = {"image": BINARY, "mask": {**BINARY, "description": MASK}}
    body["properties"] = {**body["properties"], **files}
    body["required"] = ["image", "prompt"]
    return {"multipart/form-data": {"schema": body}}


def _body(model: type[Parameters]) -> Schema:
    """Return OpenAI's fields, and those of ours that have no other name there."""
    ours, theirs = schema_of(model)["properties"], schema_of(ImagesBody)["properties"]
    fields = {name: field for name, field in ours.items() if name != "num_images_per_prompt"}
    return {
        "type": "object",
        "properties": {**fields, **theirs},
        "required": ["prompt"],
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}
