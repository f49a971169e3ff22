"""The paths of `/sdapi/v1` in the OpenAPI document."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.http.operations import (
    GENERATING,
    Schema,
    components,
    list_of,
    operation,
    query,
)
from api.webui import catalog, enlarge
from api.webui.body import GenerationBody

ROOT = "/sdapi/v1"
EXTENSION = "/controlnet"
OBJECT: Schema = {"type": "object"}
NULL: Schema = {"type": "null"}
_operation = partial(operation, tag="webui", error="WebUIError")


class Open(BaseModel):
    """An answer that may have further fields."""

    model_config = ConfigDict(extra="allow")


class WebUIImages(Open):
    """The images of a request."""

    images: list[str] = Field(description="PNG in base64")
    parameters: dict[str, Any] = Field(description="The request, without its images")
    info: str = Field(description="JSON")


class WebUIImage(Open):
    """An enlarged image."""

    html_info: str
    image: str = Field(description="PNG in base64")


class WebUIEnlarged(Open):
    """Enlarged images."""

    html_info: str
    images: list[str] = Field(description="PNG in base64")


class WebUIPicture(BaseModel):
    """An image to look into."""

    image: str = Field(description="Base64")


class WebUIParameters(Open):
    """The parameters inside an image."""

    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]
    native: dict[str, Any] | None = Field(description="As our own endpoints take them")


class WebUISampler(Open):
    """A sampler."""

    name: str
    aliases: list[str]
    options: dict[str, Any]


class WebUIScheduler(Open):
    """A spacing of noise levels."""

    name: str
    label: str


class WebUINamed(Open):
    """A LoRA, an upscaler, or what enlarges latents."""

    name: str


class WebUIModel(Open):
    """A model."""

    title: str
    model_name: str


class WebUIOptions(Open):
    """The options that clients read."""

    sd_model_checkpoint: str


class WebUIState(Open):
    """The state of the oldest request."""

    job: str
    job_count: int
    sampling_step: int
    sampling_steps: int
    interrupted: bool


class WebUIProgress(Open):
    """The progress of the oldest request."""

    progress: float
    eta_relative: float
    state: WebUIState
    current_image: str | None = Field(description="A preview: PNG in base64")


class WebUIError(BaseModel):
    """The answer to a request that has problems."""

    error: str
    detail: str
    body: str
    errors: str


#: path -> its operation's id, what it lists, and what that is
LISTS: dict[str, tuple[str, type[BaseModel], str]] = {
    "samplers": ("webuiSamplers", WebUISampler, "Samplers"),
    "schedulers": ("webuiSchedulers", WebUIScheduler, "Spacings of noise levels"),
    "loras": ("webuiLoras", WebUINamed, "LoRAs"),
    "upscalers": ("webuiUpscalers", WebUINamed, "Upscalers"),
    "latent-upscale-modes": ("webuiLatentUpscaleModes", WebUINamed, "Enlargers of latents"),
    "sd-models": ("webuiModels", WebUIModel, "Models"),
}
ANSWERS: tuple[type[BaseModel], ...] = (
    WebUIImages,
    WebUIImage,
    WebUIEnlarged,
    WebUIParameters,
    WebUIProgress,
    WebUIError,
)


def paths() -> Schema:
    """Return path -> method -> operation."""
    extension = {
        f"{EXTENSION}/model_list": {
            "get": _operation("webuiControlNetModels", "ControlNets", OBJECT)
        },
        f"{EXTENSION}/module_list": {
            "get": _operation("webuiControlNetModules", "No preprocessors", OBJECT)
        },
    }
    named = {f"{ROOT}/{name}": methods for name, methods in {**_reads(), **_writes()}.items()}
    return named | extension


def schemas() -> Schema:
    """Return what the paths refer to."""
    bodies: dict[str, type[BaseModel]] = {
        "WebUIGeneration": GenerationBody,
        "WebUISingle": enlarge.Single,
        "WebUISeveral": enlarge.Several,
        "WebUIPicture": WebUIPicture,
    }
    sent = components(bodies, "validation")
    for name in ("WebUIGeneration", "WebUISingle", "WebUISeveral"):
        sent[name]["additionalProperties"] = True  # what clients send beside is ignored
    sent["WebUIGeneration"]["examples"] = [{"prompt": "View of a cyberpunk city", "steps": 20}]
    answers: list[type[BaseModel]] = [
        *ANSWERS,
        WebUIOptions,
        *(model for _, model, _ in LISTS.values()),
    ]
    return sent | components({model.__name__: model for model in answers}, "serialization")


def _reads() -> Schema:
    skip = query("skip_current_image", {"type": "boolean"}, "Without the preview")
    return {
        **{
            name: {"get": _operation(id, text, list_of(model))}
            for name, (id, model, text) in LISTS.items()
        },
        **{name: {"get": _nothing(name, empty)} for name, empty in catalog.EMPTY.items()},
        "embeddings": {"get": _operation("webuiEmbeddings", "Textual inversions", OBJECT)},
        "options": {
            "get": _operation("webuiOptions", "Options", "WebUIOptions"),
            "post": _operation(
                "webuiSetOptions",
                "Choose the model of your requests; other options change nothing",
                NULL,
                errors=(400, 401, 404, 413, 503),
                body={"application/json": {"schema": OBJECT}},
            ),
        },
        "progress": {
            "get": _operation(
                "webuiProgress",
                "How far your oldest request is",
                "WebUIProgress",
                parameters=[skip],
            )
        },
    }


def _writes() -> Schema:
    looking = (400, 401, 413, 415, 503)
    return {
        "txt2img": {"post": _write("webuiTxt2img", "Generate")},
        "img2img": {"post": _write("webuiImg2img", "Change an image")},
        "extra-single-image": {
            "post": _write("webuiEnlarge", "Enlarge an image", "WebUIImage", "WebUISingle")
        },
        "extra-batch-images": {
            "post": _write("webuiEnlargeAll", "Enlarge images", "WebUIEnlarged", "WebUISeveral")
        },
        "interrupt": {"post": _operation("webuiInterrupt", "Stop your requests", OBJECT)},
        "skip": {"post": _operation("webuiSkip", "Stop your requests", OBJECT)},
        "refresh-checkpoints": {
            "post": _operation("webuiRefreshCheckpoints", "Nothing to do", NULL)
        },
        "png-info": {
            "post": _operation(
                "webuiPngInfo",
                "Parameters inside an image",
                "WebUIParameters",
                errors=looking,
                body="WebUIPicture",
            )
        },
    }


def _write(
    id: str, text: str, answer: str = "WebUIImages", body: str = "WebUIGeneration"
) -> Schema:
    return _operation(id, text, answer, errors=GENERATING, body=body)


def _nothing(name: str, empty: Any) -> Schema:
    """Return what looks up something that is not here, at a path such as `sd-vae`."""
    id = "webui" + "".join(word.capitalize() for word in name.split("-"))
    answer = {"type": "array", "items": OBJECT} if isinstance(empty, list) else OBJECT
    return _operation(id, f"Nothing: {name}", answer)
