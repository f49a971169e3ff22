"""One OpenAPI document of everything, and the Swagger page that shows it."""

from __future__ import annotations

from functools import cache
from typing import Any

from api.http import forms
from api.http.operations import (
    BINARY,
    DRAWING,
    SECURITY_SCHEMES,
    controls,
    json,
    operation,
    reference,
    schema_of,
)
from api.jobs import schema as jobs
from api.native import imagine
from api.openai import schema as openai
from api.webui import schema as webui
from runnables.parameters import MODELS, AnyParameters, Task, TextToImage, Upscale

#: Swagger UI from the host's own files: nothing is loaded from elsewhere
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Stable Diffusion</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="./static_content/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js"></script>
<script>window.ui = SwaggerUIBundle({url: "./docs.json", dom_id: "#swagger-ui"})</script>
</body></html>
"""
#: the README's own
EXAMPLE = {"prompt": "View of a cyberpunk city"}
FILES = {
    "img": "PNG, JPEG, WebP, GIF, BMP or TIFF",
    "mask": "White is redrawn, black is kept",
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
#: of an image that was only enlarged
ENLARGED = {
    name: HEADERS[name]
    for name in ("width", "height", "finish-reason", "Server-Timing", "x-request-id")
}


@cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, Any] = {f"/{task}": {"post": _drawing(task)} for task in MODELS}
    paths |= {
        "/samplers": {"get": _list("The samplers a request may name")},
        "/loras": {"get": _list("The LoRAs a request may name")},
        "/controlnets": {"get": _list("The ControlNets a request may name")},
        "/embeddings": {"get": _list("The textual inversions a request may name")},
        "/upscalers": {"get": _list("The upscalers a request may name")},
        "/models": {"get": _list("The model that is served, and its defaults")},
        "/healthz": {"get": _plain("The process runs")},
        "/livez": {"get": _plain("The process runs")},
        "/readyz": {"get": _plain("The model is loaded and warmed up")},
        "/metrics": {"get": _plain("Prometheus metrics")},
    }
    paths |= jobs.paths() | openai.paths() | webui.paths() | imagine.paths()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stable Diffusion",
            "version": "0.1.0",
            "description": "Draw images from text, redraw images, and redraw parts of images.",
        },
        "paths": paths,
        "components": {
            "schemas": {model.__name__: _schema(model) for model in MODELS.values()}
            | {"Error": _error_schema()}
            | jobs.schemas()
            | openai.schemas()
            | webui.schemas(),
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _drawing(task: Task) -> dict[str, Any]:
    model = MODELS[task]
    summary = (model.__doc__ or "").partition(": ")[2].strip().capitalize()
    headers = ENLARGED if model is Upscale else HEADERS
    drawn = operation(summary, {"200": _image_response(headers)}, errors=DRAWING, body=_body(model))
    return {**drawn, "operationId": task}


def _body(model: type[AnyParameters]) -> dict[str, Any]:
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


def _schema(model: type[AnyParameters]) -> dict[str, Any]:
    example = {"scale": 2} if model is Upscale else EXAMPLE
    return {**schema_of(model), "examples": [example]}


def _image_response(headers: dict[str, str]) -> dict[str, Any]:
    kinds = ("image/jpeg", "image/png", "image/webp")
    return {
        "description": "The image; as JSON, all images in base64 (PNG) with their seeds",
        "content": {kind: {"schema": BINARY} for kind in kinds}
        | {"application/json": {"schema": {"type": "object"}}},
        "headers": {name: {"schema": {"type": kind}} for name, kind in headers.items()},
    }


def _list(summary: str) -> dict[str, Any]:
    listed = {"type": "array", "items": {"type": "object"}}
    return operation(summary, {"200": json(listed, summary)})


def _plain(summary: str) -> dict[str, Any]:
    text = {"description": summary, "content": {"text/plain": {"schema": {"type": "string"}}}}
    return operation(summary, {"200": text}, errors=(503,), open=True)


def _error_schema() -> dict[str, Any]:
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
