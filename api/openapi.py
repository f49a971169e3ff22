"""One OpenAPI document of everything, and the Swagger page that shows it."""

from __future__ import annotations

from functools import cache
from typing import Any

from runnables.parameters import MODELS, Inpaint, Parameters, Task, TextToImage

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
ERRORS = {
    400: "A parameter is wrong; `detail` names it",
    401: "No API key, or a wrong one",
    404: "No such sampler",
    413: "Too many bytes or pixels",
    415: "Not an image",
    429: "Too much work is waiting; see `Retry-After`",
    500: "This image failed",
    503: "The model is loading or the service is stopping",
    504: "The deadline passed",
}
#: the README's own
EXAMPLE = {"prompt": "View of a cyberpunk city"}
SECURITY: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"key": []}]
FILES = {
    "img": "PNG, JPEG, WebP, GIF, BMP or TIFF",
    "mask": "White is redrawn, black is kept",
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


@cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, Any] = {f"/{task}": {"post": _drawing(task)} for task in MODELS}
    paths |= {
        "/samplers": {"get": _list("The samplers a request may name")},
        "/models": {"get": _list("The model that is served, and its defaults")},
        "/healthz": {"get": _plain("The process runs", None)},
        "/livez": {"get": _plain("The process runs", None)},
        "/readyz": {"get": _plain("The model is loaded and warmed up", None)},
        "/metrics": {"get": _plain("Prometheus metrics", None)},
    }
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
            | {"Error": _error_schema()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _drawing(task: Task) -> dict[str, Any]:
    model = MODELS[task]
    return {
        "summary": (model.__doc__ or "").partition(": ")[2].strip().capitalize(),
        "operationId": task,
        "security": SECURITY,
        "requestBody": {"required": True, "content": _body(model)},
        "responses": {"200": _image_response()}
        | {str(code): _error(text) for code, text in ERRORS.items()},
    }


def _body(model: type[Parameters]) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    if model is TextToImage:
        return {"application/json": {"schema": reference}}
    names = ["img", "mask"] if model is Inpaint else ["img"]
    files = {
        name: {"type": "string", "format": "binary", "description": FILES[name]} for name in names
    }
    schema = {
        "type": "object",
        "properties": {**files, "data": reference},
        "required": [*files, "data"],
    }
    encoding = {"data": {"contentType": "application/json"}}
    return {"multipart/form-data": {"schema": schema, "encoding": encoding}}


def _schema(model: type[Parameters]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema, "examples": [EXAMPLE]}


def _image_response() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    kinds = ("image/jpeg", "image/png", "image/webp")
    return {
        "description": "The image; as JSON, all images in base64 (PNG) with their seeds",
        "content": dict.fromkeys(kinds, binary)
        | {"application/json": {"schema": {"type": "object"}}},
        "headers": {name: {"schema": {"type": kind}} for name, kind in HEADERS.items()},
    }


def _list(summary: str) -> dict[str, Any]:
    listed = _plain(summary, {"type": "array", "items": {"type": "object"}})
    listed["responses"]["401"] = _error(ERRORS[401])
    return {**listed, "security": SECURITY}


def _plain(summary: str, schema: dict[str, Any] | None) -> dict[str, Any]:
    kind = "application/json" if schema else "text/plain"
    content = {kind: {"schema": schema or {"type": "string"}}}
    return {
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": content},
            "503": _error(ERRORS[503]),
        },
    }


def _error(text: str) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Error"}
    return {"description": text, "content": {"application/json": {"schema": reference}}}


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
