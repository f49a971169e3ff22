"""Our own endpoints in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.http import forms
from api.http.operations import (
    BINARY,
    GENERATING,
    HINT,
    Schema,
    components,
    controls,
    fields_of,
    file,
    is_plain,
    json,
    list_of,
    operation,
    path_field,
    query,
    reference,
)
from api.native.imagine import NOT_IN_QUERY
from runnables.parameters import MAX_SIZE, MODELS, AnyParameters, Task, TextToImage, Upscale
from runnables.samplers.names import Prediction
from runnables.ticket import FinishReason

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
    "hint": "string",
    "cache": "string",
    "Server-Timing": "string",
    "x-request-id": "string",
}
#: the headers of an image that was only enlarged
ENLARGED = {
    name: HEADERS[name]
    for name in ("width", "height", "finish-reason", "cache", "Server-Timing", "x-request-id")
}
CHANGES = {
    "load": ("loadModel", "Load a model, and answer when it is ready"),
    "unload": (
        "unloadModel",
        "Finish the model's requests and free its memory; the next request loads it again",
    ),
}
PROBES = {
    "healthz": ("checkAlive", "The process runs"),
    "livez": ("checkLive", "The process runs"),
    "readyz": ("checkReady", "The model is loaded and warmed up"),
    "health": ("checkHealth", "The same as /readyz"),
    "v1/health": ("checkHealthV1", "The same as /readyz"),
    "metrics": ("getMetrics", "Prometheus metrics"),
}


class GeneratedImage(BaseModel):
    """One image of an answer in JSON."""

    image: str = Field(description="PNG in base64")
    seed: int | None = Field(description="null where an image was only enlarged")
    finish_reason: FinishReason
    hint: str | None = Field(description=HINT)


class GeneratedImages(BaseModel):
    """All images of a request, with `output_format` json."""

    images: list[GeneratedImage]
    parameters: dict[str, Any] = Field(description="With every default and the seed")
    timings: dict[str, float] = Field(description="Seconds by stage")


class SamplerInfo(BaseModel):
    """A sampler that requests may name."""

    name: str
    label: str
    scheduler: str | None = Field(description="The class in diffusers")
    flow_scheduler: str | None = Field(description="The class in diffusers for flow matching")
    aliases: list[str]
    stochastic: bool
    spacing: str
    predictions: list[Prediction] = Field(description="The kinds of models that it fits")


class ModelInfo(BaseModel):
    """A model that requests may name; of one that is not loaded only the name is known."""

    model_config = ConfigDict(extra="allow")

    name: str
    loaded: bool
    family: str = ""
    prediction: Prediction | None = None
    height: int | None = Field(None, description="Native")
    width: int | None = Field(None, description="Native")
    defaults: dict[str, Any] | None = None
    device: str = ""
    precision: str = ""


class FileInfo(BaseModel):
    """A LoRA, a ControlNet or a textual inversion that requests may name."""

    name: str


class UpscalerInfo(BaseModel):
    """An upscaler that requests may name, and how many times it enlarges by itself."""

    name: str
    scale: int


class Watermark(BaseModel):
    """The answer to whether this service's watermark is in an image."""

    found: bool
    score: float = Field(description="Standard deviations over chance; over 7 is found")


class Manifest(BaseModel):
    """The C2PA manifest of a file, and whether it holds."""

    state: str | None
    error: str | None
    manifest: dict[str, Any] | None


class Origin(BaseModel):
    """The facts that an image's file states about its origin."""

    c2pa: Manifest | None
    metadata: dict[str, str] | None
    watermark: Watermark | None = Field(description="null where the service sets none")


class Problem(BaseModel):
    """One problem of a request, and the field that has it."""

    loc: list[str | int]
    msg: str


class Error(BaseModel):
    """The answer to a request that has problems."""

    error: str
    detail: list[Problem]


LISTS: dict[str, tuple[str, type[BaseModel], str]] = {
    "samplers": ("listSamplers", SamplerInfo, "The samplers that a request may name"),
    "loras": ("listLoras", FileInfo, "The LoRAs that a request may name"),
    "controlnets": ("listControlNets", FileInfo, "The ControlNets that a request may name"),
    "embeddings": ("listEmbeddings", FileInfo, "The textual inversions that a request may name"),
    "upscalers": ("listUpscalers", UpscalerInfo, "The upscalers that a request may name"),
    "models": ("listModels", ModelInfo, "The models that a request may name, the default first"),
}


def paths() -> Schema:
    """Return path -> method -> operation."""
    return {
        **{f"/{task}": {"post": _task(task)} for task in MODELS},
        "/imagine": {"get": _imagine()},
        "/verify": {"post": _verify()},
        **{f"/{name}": {"get": _list(*of)} for name, of in LISTS.items()},
        **{f"/models/{{name}}/{verb}": {"post": _change(*of)} for verb, of in CHANGES.items()},
        **{f"/{name}": {"get": _text(*of)} for name, of in PROBES.items()},
        "/version": {"get": _version()},
    }


def schemas() -> Schema:
    """Return what the paths refer to."""
    sent = components({model.__name__: model for model in MODELS.values()}, "validation")
    answers: tuple[type[BaseModel], ...] = (GeneratedImages, Origin, Error)
    listed = [model for _, model, _ in LISTS.values()]
    named = {model.__name__: model for model in (*answers, *listed)}
    for model in MODELS.values():
        sent[model.__name__]["examples"] = [{"scale": 2} if model is Upscale else EXAMPLE]
    return sent | components(named, "serialization")


def _task(task: Task) -> Schema:
    model = MODELS[task]
    summary = (model.__doc__ or "").partition(": ")[2].strip().capitalize()
    answer = _image_response(ENLARGED if model is Upscale else HEADERS)
    return operation(task, summary, answer, tag="images", errors=GENERATING, body=_body(model))


def _body(model: type[AnyParameters]) -> Schema:
    data = reference(model.__name__)
    files = {name: {**BINARY, "description": FILES[name]} for name in forms.files_of(model)}
    schema = {
        "type": "object",
        "properties": {**files, "control": controls(FILES["control"]), "data": data},
        "required": [*files, "data"],
    }
    encoding = {"data": {"contentType": "application/json"}}
    parts = {"multipart/form-data": {"schema": schema, "encoding": encoding}}
    plain = {"application/json": {"schema": data}} if model is TextToImage else {}
    return {**plain, **parts}


def _image_response(headers: dict[str, str]) -> Schema:
    # the first is what Swagger UI asks for, and shows
    kinds = ("image/jpeg", "application/json", "image/png", "image/webp")
    schemas = dict.fromkeys(kinds, BINARY) | {"application/json": reference("GeneratedImages")}
    return {
        "description": "The image; as JSON, all images in base64 (PNG) with their seeds",
        "content": {kind: {"schema": schema} for kind, schema in schemas.items()},
        "headers": {name: {"schema": {"type": kind}} for name, kind in headers.items()},
    }


def _imagine() -> Schema:
    fields = fields_of(TextToImage)
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
    return operation(
        "imagine",
        "Generate a PNG",
        file("The image", "image/png"),
        tag="images",
        errors=GENERATING,
        parameters=parameters,
    )


def _verify() -> Schema:
    image = {"type": "object", "properties": {"img": BINARY}, "required": ["img"]}
    return operation(
        "verifyImage",
        "What an image's file says about its origin",
        "Origin",
        tag="images",
        errors=(400, 401, 408, 413, 415, 429, 503),
        body={"multipart/form-data": {"schema": image}},
    )


def _list(id: str, model: type[BaseModel], summary: str) -> Schema:
    return operation(id, summary, json(list_of(model), summary), tag="names")


def _change(id: str, summary: str) -> Schema:
    described = json("ModelInfo", "The model, as `GET /models` describes it")
    errors = (401, 403, 404, 429, 503, 504)
    name = path_field("name", "A name from `GET /models`")
    return operation(id, summary, described, tag="names", errors=errors, parameters=[name])


def _text(id: str, summary: str) -> Schema:
    text = {"description": summary, "content": {"text/plain": {"schema": {"type": "string"}}}}
    return operation(id, summary, text, tag="probes", errors=(503,), open=True)


def _version() -> Schema:
    named = {"type": "object", "additionalProperties": {"type": "string"}}
    summary = "The version of this service, and of the packages that its images depend on"
    return operation("getVersion", summary, json(named, summary), tag="probes", open=True)
