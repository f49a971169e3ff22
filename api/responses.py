"""Results and errors to HTTP responses."""

from __future__ import annotations

import base64
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api.forms import Invalid
from runnables import images
from runnables.engine.request import Drawn, Result
from runnables.errors import InvalidInput, NotReady, OverCapacity, StableDiffusionError, error_body
from runnables.parameters import OutputFormat, Parameters
from runnables.settings import Settings

MEDIA: dict[str, OutputFormat] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/webp": "webp",
    "application/json": "json",
}
ANY = {"*/*", "image/*", ""}
#: what is not about the image
NOT_PARAMETERS = {"priority", "deadline_s", "output_format", "safety_check"}


def choose_format(parameters: Parameters, accept: str) -> OutputFormat:
    """The format asked for by `output_format`, else by `Accept`; JPEG where anything will do.

    Several images go out as JSON unless one image format is insisted on, which cannot hold them.

    Raises:
        InvalidInput: nothing acceptable can be sent.
    """
    several = parameters.num_images_per_prompt > 1
    chosen = parameters.output_format or _accepted(accept, several)
    if several and chosen != "json":
        raise InvalidInput(
            "several images are sent as JSON: set output_format to json or Accept to "
            "application/json, or ask for one image at a time",
            loc=("num_images_per_prompt",),
        )
    return chosen


def _accepted(accept: str, several: bool) -> OutputFormat:
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    for kind in kinds:
        if kind in MEDIA:
            return MEDIA[kind]
        if kind in ANY:
            return "json" if several and kind != "image/*" else "jpeg"
    raise InvalidInput(
        f"Accept: {accept} cannot be served; known: {', '.join(MEDIA)}", loc=("accept",)
    )


async def image_response(
    result: Result, chosen: OutputFormat, settings: Settings, model: str, request_id: str
) -> Response:
    """One image as its file, or all of them as JSON; encoding happens in a thread."""
    described = [_described(result, drawn, settings, model) for drawn in result.images]
    headers = _headers(result, request_id)
    if chosen == "json":
        body = await run_in_threadpool(_json_body, result, described)
        return JSONResponse(body, headers=headers)
    first = result.images[0]
    data = await run_in_threadpool(images.encode, first.image, chosen, described[0])
    return Response(data, media_type=f"image/{chosen}", headers=headers)


def error_response(error: StableDiffusionError) -> JSONResponse:
    """`{"error", "detail"}` with the error's status."""
    body = error_body(error)
    if isinstance(error, Invalid):
        body["detail"] = error.problems
    headers = {}
    if isinstance(error, OverCapacity):
        headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, NotReady):
        headers["Retry-After"] = "5"
    return JSONResponse(body, error.status, headers=headers)


def _headers(result: Result, request_id: str) -> dict[str, str]:
    parameters, first = result.parameters, result.images[0]
    timing = ", ".join(f"{k};dur={1000 * v:.1f}" for k, v in result.timings.items())
    return {
        "seed": str(first.seed),
        "width": str(first.image.width),
        "height": str(first.image.height),
        "scheduler": str(parameters.scheduler),
        "num-inference-steps": str(parameters.num_inference_steps),
        "guidance-scale": str(parameters.guidance_scale),
        "finish-reason": first.finish_reason,
        "Server-Timing": timing,
        "x-request-id": request_id,
    }


def _described(
    result: Result, drawn: Drawn, settings: Settings, model: str
) -> dict[str, Any] | None:
    """What is written into an image's file, as the operator's policy says."""
    if settings.metadata == "none":
        return None
    if settings.metadata == "minimal":
        return {"generator": "stable-diffusion-service", "model": model, "seed": drawn.seed}
    return {**_parameters(result), "seed": drawn.seed, "model": model}


def _parameters(result: Result) -> dict[str, Any]:
    return result.parameters.model_dump(
        exclude=NOT_PARAMETERS | {"num_images_per_prompt"}, exclude_none=True
    )


def _json_body(result: Result, described: list[dict[str, Any] | None]) -> dict[str, Any]:
    return {
        "images": [
            {
                "image": base64.b64encode(images.encode(drawn.image, "png", text)).decode(),
                "seed": drawn.seed,
                "finish_reason": drawn.finish_reason,
            }
            for drawn, text in zip(result.images, described, strict=True)
        ],
        "parameters": _parameters(result),
        "timings": dict(result.timings),
    }
