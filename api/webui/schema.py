"""The paths of `/sdapi/v1` in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.http.operations import (
    GENERATING,
    LOOKING,
    Schema,
    components,
    json,
    operation,
    query,
    reference,
)
from api.webui import catalog, enlarge
from api.webui.body import GenerationBody

ROOT = "/sdapi/v1"
EXTENSION = "/controlnet"
FORM = "WebUIError"
TAG = "webui"


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
        f"{EXTENSION}/model_list": {"get": _look("webuiControlNetModels", "ControlNets", OBJECT)},
        f"{EXTENSION}/module_list": {
            "get": _look("webuiControlNetModules", "No preprocessors", OBJECT)
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
            name: {"get": _look(id, text, _list(model))}
            for name, (id, model, text) in LISTS.items()
        },
        **{
            name: {"get": _look(_id_of(name), f"Nothing: {name}", _like(empty))}
            for name, empty in catalog.EMPTY.items()
        },
        "embeddings": {"get": _look("webuiEmbeddings", "Textual inversions", OBJECT)},
        "options": {
            "get": _look("webuiOptions", "Options", reference("WebUIOptions")),
            "post": _write(
                "webuiSetOptions",
                "Choose the model of your requests; other options change nothing",
                {"type": "null"},
                OBJECT,
                errors=(400, 401, 404, 413, 503),
            ),
        },
        "progress": {
            "get": operation(
                "webuiProgress",
                TAG,
                "How far your oldest request is",
                {"200": json(reference("WebUIProgress"))},
                error=FORM,
                parameters=[skip],
            )
        },
    }


def _writes() -> Schema:
    body, images = reference("WebUIGeneration"), reference("WebUIImages")
    single, several = reference("WebUISingle"), reference("WebUISeveral")
    picture, found = reference("WebUIPicture"), reference("WebUIParameters")
    looking = (400, 401, 413, 415, 503)
    return {
        "txt2img": {"post": _write("webuiTxt2img", "Generate", images, body)},
        "img2img": {"post": _write("webuiImg2img", "Change an image", images, body)},
        "extra-single-image": {
            "post": _write("webuiEnlarge", "Enlarge an image", reference("WebUIImage"), single)
        },
        "extra-batch-images": {
            "post": _write("webuiEnlargeAll", "Enlarge images", reference("WebUIEnlarged"), several)
        },
        "interrupt": {"post": _empty("webuiInterrupt", "Stop your requests", OBJECT)},
        "skip": {"post": _empty("webuiSkip", "Stop your requests", OBJECT)},
        "refresh-checkpoints": {
            "post": _empty("webuiRefreshCheckpoints", "Nothing to do", {"type": "null"})
        },
        "png-info": {
            "post": _write("webuiPngInfo", "Parameters inside an image", found, picture, looking)
        },
    }


OBJECT: Schema = {"type": "object"}


def _look(id: str, text: str, schema: Schema) -> Schema:
    return operation(id, TAG, text, {"200": json(schema)}, errors=LOOKING, error=FORM)


def _empty(id: str, text: str, schema: Schema) -> Schema:
    return operation(id, TAG, text, {"200": json(schema)}, error=FORM)


def _write(
    id: str, text: str, answer: Schema, body: Schema, errors: tuple[int, ...] = GENERATING
) -> Schema:
    content = {"application/json": {"schema": body}}
    return operation(id, TAG, text, {"200": json(answer)}, errors=errors, error=FORM, body=content)


def _id_of(name: str) -> str:
    """Return an operation's id for a path such as `sd-vae`."""
    return "webui" + "".join(word.capitalize() for word in name.split("-"))


def _like(value: Any) -> Schema:
    return {"type": "array", "items": OBJECT} if isinstance(value, list) else OBJECT


def _list(model: type[BaseModel]) -> Schema:
    return {"type": "array", "items": reference(model.__name__)}
