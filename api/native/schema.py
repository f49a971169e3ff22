"""Our own endpoints in the OpenAPI document."""

from __future__ import annotations

from api.http import forms
from api.http.operations import (
    BINARY,
    GENERATING,
    Schema,
    controls,
    is_plain,
    json,
    operation,
    query,
    reference,
    schema_of,
)
from api.native.imagine import NOT_IN_QUERY
from runnables.parameters import MAX_SIZE, MODELS, AnyParameters, Task, TextToImage, Upscale

#: the README's own
EXAMPLE = {"prompt": "View of a cyberpunk city"}
FILES = {
    "img": "PNG, JPEG, WebP, GIF, BMP or TIFF",
    "mask": "White is repainted, black is kept",
    "control": "An image for each of `controlnets`, in their order",
}
HEADERS = {
    "seed": "integer",
    "width": "integer",
    "height": "integer",
    "scheduler": "string",
    "num-inference-steps": "integer",
    "guidance-scale": "number",
    "finish-reason": "string",
    "Server-Timing": "string",
    "x-request-id": "string",
}
#: the headers of an image that was only enlarged
ENLARGED = {
    name: HEADERS[name]
    for name in ("width", "height", "finish-reason", "Server-Timing", "x-request-id")
}
LISTS = {
    "samplers": "The samplers that a request may name",
    "loras": "The LoRAs that a request may name",
    "controlnets": "The ControlNets that a request may name",
    "embeddings": "The textual inversions that a request may name",
    "upscalers": "The upscalers that a request may name",
    "models": "The models that a request may name, the default first, and their defaults",
}
CHANGES = {
    "load": "Load a model, and answer when it is ready",
    "unload": "Finish the model's requests and free its memory; the next request loads it again",
}
PROBES = {
    "healthz": "The process runs",
    "livez": "The process runs",
    "readyz": "The model is loaded and warmed up",
    "health": "The same as /readyz",
    "v1/health": "The same as /readyz",
    "metrics": "Prometheus metrics",
}


def paths() -> Schema:
    """Return path -> method -> operation."""
    return {
        **{f"/{task}": {"post": _task(task)} for task in MODELS},
        "/imagine": {"get": _imagine()},
        **{f"/{name}": {"get": _list(summary)} for name, summary in LISTS.items()},
        **{f"/models/{{name}}/{verb}": {"post": _change(verb)} for verb in CHANGES},
        **{f"/{name}": {"get": _text(summary)} for name, summary in PROBES.items()},
        "/version": {"get": _version()},
    }


def schemas() -> Schema:
    """Return what the paths refer to."""
    return {model.__name__: _schema(model) for model in MODELS.values()} | {"Error": _error()}


def _task(task: Task) -> Schema:
    model = MODELS[task]
    summary = (model.__doc__ or "").partition(": ")[2].strip().capitalize()
    headers = ENLARGED if model is Upscale else HEADERS
    answers = {"200": _image_response(headers)}
    described = operation(summary, answers, errors=GENERATING, body=_body(model))
    return {**described, "operationId": task}


def _body(model: type[AnyParameters]) -> Schema:
    data = reference(model.__name__)
    files = {
        name: {"type": "string", "format": "binary", "description": FILES[name]}
        for name in forms.files_of(model)
    }
    schema = {
        "type": "object",
        "properties": {**files, "control": controls(FILES["control"]), "data": data},
        "required": [*files, "data"],
    }
    encoding = {"data": {"contentType": "application/json"}}
    parts = {"multipart/form-data": {"schema": schema, "encoding": encoding}}
    plain = {"application/json": {"schema": data}} if model is TextToImage else {}
    return {**plain, **parts}


def _schema(model: type[AnyParameters]) -> Schema:
    example = {"scale": 2} if model is Upscale else EXAMPLE
    return {**schema_of(model), "examples": [example]}


def _image_response(headers: dict[str, str]) -> Schema:
    kinds = ("image/jpeg", "image/png", "image/webp")
    return {
        "description": "The image; as JSON, all images in base64 (PNG) with their seeds",
        "content": {kind: {"schema": BINARY} for kind in kinds}
        | {"application/json": {"schema": {"type": "object"}}},
        "headers": {name: {"schema": {"type": kind}} for name, kind in headers.items()},
    }


def _imagine() -> Schema:
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
    return operation("Generate a PNG", {"200": image}, errors=GENERATING, parameters=parameters)


def _list(summary: str) -> Schema:
    listed = {"type": "array", "items": {"type": "object"}}
    return operation(summary, {"200": json(listed, summary)})


def _change(verb: str) -> Schema:
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    described = json({"type": "object"}, "The model, as `GET /models` describes it")
    errors = (401, 403, 404, 503, 504)
    return operation(CHANGES[verb], {"200": described}, errors=errors, parameters=[name])


def _text(summary: str) -> Schema:
    text = {"description": summary, "content": {"text/plain": {"schema": {"type": "string"}}}}
    return operation(summary, {"200": text}, errors=(503,), open=True)


def _version() -> Schema:
    named = {"type": "object", "additionalProperties": {"type": "string"}}
    summary = "The version of this service, and of the packages that its images depend on"
    return operation(summary, {"200": json(named, summary)}, open=True)


def _error() -> Schema:
    place = {"type": "array", "items": {"type": ["string", "integer"]}}
    problem = {"type": "object", "properties": {"loc": place, "msg": {"type": "string"}}}
    return {
        "type": "object",
        "required": ["error", "detail"],
        "properties": {
            "error": {"type": "string"},
            "detail": {"type": "array", "items": problem},
        },
    }
