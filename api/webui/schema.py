"""The paths of `/sdapi/v1` in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from api.http.operations import (
    GENERATING,
    LOOKING,
    Schema,
    json,
    operation,
    query,
    reference,
    schema_of,
)
from api.webui import catalog, enlarge
from api.webui.body import GenerationBody

ROOT = "/sdapi/v1"
EXTENSION = "/controlnet"
FORM = "WebUIError"
LISTS = {
    "samplers": "Samplers",
    "schedulers": "Spacings of noise levels",
    "loras": "LoRAs",
    "upscalers": "Upscalers",
    "latent-upscale-modes": "What enlarges latents before a second pass",
    "sd-models": "Models",
}


def paths() -> Schema:
    """Return path -> method -> operation."""
    extension = {
        f"{EXTENSION}/model_list": {"get": _look("ControlNets", _object())},
        f"{EXTENSION}/module_list": {"get": _look("No preprocessors", _object())},
    }
    named = {f"{ROOT}/{name}": methods for name, methods in {**_reads(), **_writes()}.items()}
    return named | extension


def schemas() -> Schema:
    """Return what the paths refer to."""
    text = {"type": "string"}
    images = {"type": "array", "items": {"type": "string", "description": "PNG in base64"}}
    info = {**text, "description": "JSON"}
    return {
        "WebUIGeneration": {**schema_of(GenerationBody), "additionalProperties": True},
        "WebUISingle": {**schema_of(enlarge.Single), "additionalProperties": True},
        "WebUISeveral": {**schema_of(enlarge.Several), "additionalProperties": True},
        "WebUIImages": {
            "type": "object",
            "required": ["images", "parameters", "info"],
            "properties": {"images": images, "parameters": {"type": "object"}, "info": info},
        },
        FORM: {
            "type": "object",
            "required": ["error", "detail"],
            "properties": dict.fromkeys(("error", "detail", "body", "errors"), text),
        },
    }


def _reads() -> Schema:
    skip = query("skip_current_image", {"type": "boolean"}, "Without the preview")
    return {
        **{name: {"get": _look(text, _list())} for name, text in LISTS.items()},
        **{
            name: {"get": _look(f"Nothing: {name}", _like(empty))}
            for name, empty in catalog.EMPTY.items()
        },
        "embeddings": {"get": _look("Textual inversions", _object())},
        "options": {
            "get": _look("What clients read of the options", {"type": "object"}),
            "post": _write(
                "Choose the model of your requests; other options change nothing",
                {"type": "null"},
                {"type": "object"},
                errors=(400, 401, 404, 413, 503),
            ),
        },
        "progress": {
            "get": operation(
                "How far your oldest request is",
                {"200": json({"type": "object", "required": ["progress", "state"]})},
                error=FORM,
                parameters=[skip],
            )
        },
    }


def _writes() -> Schema:
    picture = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "description": "Base64"}},
    }
    body, images = reference("WebUIGeneration"), reference("WebUIImages")
    stop = {"post": operation("Stop your requests", {"200": json(_object())}, error=FORM)}
    found = {"type": "object", "required": ["info", "items", "parameters", "native"]}
    return {
        "txt2img": {"post": _write("Generate (WebUI)", images, body)},
        "img2img": {"post": _write("Change an image (WebUI)", images, body)},
        "extra-single-image": {"post": _extra("WebUISingle", {"image": {"type": "string"}})},
        "extra-batch-images": {"post": _extra("WebUISeveral", {"images": _list()})},
        "interrupt": stop,
        "skip": stop,
        "refresh-checkpoints": {
            "post": operation("Nothing to do", {"200": json({"type": "null"})}, error=FORM)
        },
        "png-info": {
            "post": _write("Parameters inside an image", found, picture, (400, 401, 413, 415, 503))
        },
    }


def _extra(body: str, answer: Schema) -> Schema:
    fields = {"html_info": {"type": "string"}, **answer}
    schema = {"type": "object", "required": list(fields), "properties": fields}
    return _write("Enlarge (WebUI)", schema, reference(body))


def _look(text: str, schema: Schema) -> Schema:
    return operation(text, {"200": json(schema)}, errors=LOOKING, error=FORM)


def _write(text: str, answer: Schema, body: Schema, errors: tuple[int, ...] = GENERATING) -> Schema:
    content = {"application/json": {"schema": body}}
    return operation(text, {"200": json(answer)}, errors=errors, error=FORM, body=content)


def _like(value: Any) -> Schema:
    return _list() if isinstance(value, list) else _object()


def _list() -> Schema:
    return {"type": "array"}


def _object() -> Schema:
    return {"type": "object"}
