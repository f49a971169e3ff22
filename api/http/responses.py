"""Results and errors to HTTP responses."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http import tracing
from runnables.errors import InvalidInput, NotReady, OverCapacity, StableDiffusionError
from runnables.images import codec, provenance
from runnables.parameters import AnyParameters, OutputFormat, Parameters
from runnables.settings import Settings
from runnables.ticket import Drawn, Result

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


def choose_format(parameters: AnyParameters, accept: str) -> OutputFormat:
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
    for kind in _preferred(accept):
        if kind in MEDIA:
            return MEDIA[kind]
        if kind in ANY:
            return "json" if several and kind != "image/*" else "jpeg"
    raise InvalidInput(
        f"Accept: {accept} cannot be served; known: {', '.join(MEDIA)}", loc=("accept",)
    )


def _preferred(accept: str) -> list[str]:
    """The media types of an `Accept` header, the most wanted first (RFC 9110, section 12.5.1)."""
    weighted = [(_weight(rest), kind.strip().lower()) for kind, rest in _split(accept)]
    wanted = [pair for pair in weighted if pair[0] > 0]
    return [kind for _, kind in sorted(wanted, key=lambda pair: -pair[0])]


def _split(accept: str) -> list[tuple[str, str]]:
    return [(kind, rest) for kind, _, rest in (part.partition(";") for part in accept.split(","))]


def _weight(parameters: str) -> float:
    """The `q` of a media type; 1 where there is none or it is no number."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 1.0
    return 1.0


def encode(result: Result, chosen: OutputFormat, settings: Settings) -> bytes:
    """The only image as its file, or all of them as JSON, with what the policy lets them tell."""
    if chosen == "json":
        return json.dumps(_json_body(result, settings)).encode()
    return image_file(result, result.images[0], chosen, settings)


def image_file(result: Result, drawn: Drawn, kind: codec.Format, settings: Settings) -> bytes:
    """One image's file, with what the policy lets it tell; signed where a certificate is set.

    What was only enlarged is not signed: the manifest says that a model made the image.
    """
    data = codec.encode(drawn.image, kind, _described(result, drawn, settings))
    drawn_here = isinstance(result.parameters, Parameters)
    return provenance.sign(data, kind, settings) if drawn_here else data


async def image_response(
    result: Result, chosen: OutputFormat, settings: Settings, request_id: str
) -> Response:
    """One image as its file, or all of them as JSON; encoding happens in a thread."""
    started = time.perf_counter()
    with tracing.stage("format"):
        data = await run_in_threadpool(encode, result, chosen, settings)
    timings = {**result.timings, "format": time.perf_counter() - started}
    kind = "application/json" if chosen == "json" else f"image/{chosen}"
    return Response(data, media_type=kind, headers=_headers(result, timings, request_id))


def retry_headers(error: StableDiffusionError) -> dict[str, str]:
    """When to come back, where that is known."""
    if isinstance(error, OverCapacity):
        return {"Retry-After": str(error.retry_after)}
    return {"Retry-After": "5"} if isinstance(error, NotReady) else {}


def _headers(result: Result, timings: Mapping[str, float], request_id: str) -> dict[str, str]:
    first = result.images[0]
    timing = ", ".join(f"{k};dur={1000 * v:.1f}" for k, v in timings.items())
    return {
        **_drawn_with(result.parameters, first),
        "width": str(first.image.width),
        "height": str(first.image.height),
        "finish-reason": first.finish_reason,
        "Server-Timing": timing,
        "x-request-id": request_id,
    }


def _drawn_with(parameters: AnyParameters, drawn: Drawn) -> dict[str, str]:
    """Nothing where nothing was drawn."""
    if not isinstance(parameters, Parameters):
        return {}
    return {
        "seed": str(drawn.seed),
        "scheduler": str(parameters.scheduler),
        "num-inference-steps": str(parameters.num_inference_steps),
        "guidance-scale": str(parameters.guidance_scale),
    }


def _described(result: Result, drawn: Drawn, settings: Settings) -> dict[str, Any] | None:
    """What is written into an image's file, as the operator's policy says."""
    if settings.metadata == "none":
        return None
    if settings.metadata == "minimal":
        told = {"generator": "stable-diffusion-service"}
        return {**told, **_made_by(result.parameters, drawn)}
    return {**_parameters(result), **_made_by(result.parameters, drawn)}


def _made_by(parameters: AnyParameters, drawn: Drawn) -> dict[str, Any]:
    """Nothing where nothing was drawn."""
    if not isinstance(parameters, Parameters):
        return {}
    return {"seed": drawn.seed, "model": parameters.model}


def _parameters(result: Result) -> dict[str, Any]:
    return result.parameters.model_dump(
        exclude=NOT_PARAMETERS | {"num_images_per_prompt"}, exclude_none=True
    )


def _json_body(result: Result, settings: Settings) -> dict[str, Any]:
    files = [image_file(result, drawn, "png", settings) for drawn in result.images]
    return {
        "images": [
            {
                "image": base64.b64encode(data).decode(),
                "seed": drawn.seed,
                "finish_reason": drawn.finish_reason,
            }
            for drawn, data in zip(result.images, files, strict=True)
        ],
        "parameters": _parameters(result),
        "timings": dict(result.timings),
    }
