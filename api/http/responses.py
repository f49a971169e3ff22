"""Results to HTTP responses: the format that a client accepts, and the headers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api.http import tracing
from runnables.errors import (
    InvalidInput,
    NotReady,
    OverCapacity,
    StableDiffusionError,
    Unauthorized,
)
from runnables.images import files
from runnables.parameters import AnyParameters, OutputFormat, Parameters
from runnables.settings import Settings
from runnables.ticket import GeneratedImage, Result

MEDIA: dict[str, OutputFormat] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/webp": "webp",
    "application/json": "json",
}
ANY = {"*/*", "image/*", ""}
PRINTABLE = "".join(map(chr, range(32, 127))).replace("%", "")


def choose_format(parameters: AnyParameters, accept: str) -> OutputFormat:
    """Return the format that `output_format` names, else `Accept`; JPEG where anything will do.

    Several images go out as JSON unless one image format is insisted on, which cannot hold them.

    Raises:
        InvalidInput: Nothing acceptable can be sent.
    """
    several = parameters.num_images_per_prompt > 1
    chosen = parameters.output_format or _accepted(accept, several)
    if several and chosen != "json":
        raise InvalidInput(
            "several images are sent as JSON: set output_format to json or Accept to "
            "application/json, or request one image at a time",
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
    """Return the media types of an `Accept` header, the most wanted first (RFC 9110, 12.5.1)."""
    weighted = [(_weight(rest), kind.strip().lower()) for kind, rest in _split(accept)]
    wanted = [pair for pair in weighted if pair[0] > 0]
    return [kind for _, kind in sorted(wanted, key=lambda pair: -pair[0])]


def _split(accept: str) -> list[tuple[str, str]]:
    return [(kind, rest) for kind, _, rest in (part.partition(";") for part in accept.split(","))]


def _weight(parameters: str) -> float:
    """Return the `q` of a media type; 1 where there is none or it is no number."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 1.0
    return 1.0


async def image_response(
    result: Result, chosen: OutputFormat, settings: Settings, request_id: str
) -> Response:
    """Return one image as its file, or all images as JSON; they are encoded in a thread."""
    started = time.perf_counter()
    with tracing.stage("format"):
        data = await run_in_threadpool(files.encode, result, chosen, settings)
    timings = {**result.timings, "format": time.perf_counter() - started}
    kind = "application/json" if chosen == "json" else f"image/{chosen}"
    return Response(data, media_type=kind, headers=_headers(result, timings, request_id))


async def in_thread(make: Callable[..., object], *arguments: Any) -> Response:
    """Return what a function makes as JSON. Images in it are large: all happens in a thread."""
    return await run_in_threadpool(lambda: JSONResponse(make(*arguments)))


def retry_headers(error: StableDiffusionError) -> dict[str, str]:
    """Return the header that says when to come back, or how to show a key (RFC 9110, 11.6.1)."""
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, OverCapacity):
        return {"Retry-After": str(error.retry_after)}
    return {"Retry-After": "5"} if isinstance(error, NotReady) else {}


def _headers(result: Result, timings: Mapping[str, float], request_id: str) -> dict[str, str]:
    first = result.images[0]
    timing = ", ".join(f"{k};dur={1000 * v:.1f}" for k, v in timings.items())
    return {
        **_generated_with(result.parameters, first),
        "width": str(first.image.width),
        "height": str(first.image.height),
        "finish-reason": first.finish_reason,
        **({"hint": as_header(first.hint)} if first.hint else {}),
        **cache_header(result),
        "Server-Timing": timing,
        "x-request-id": request_id,
    }


def as_header(text: str) -> str:
    """Return a text as a header's value: what is not printable ASCII, and %, is percent-encoded."""
    return quote(text, safe=PRINTABLE)


def cache_header(result: Result) -> dict[str, str]:
    """Return the header that says how an exact repeat was answered; none of what was generated."""
    return {"cache": result.cache} if result.cache else {}


def _generated_with(parameters: AnyParameters, image: GeneratedImage) -> dict[str, str]:
    """Return the headers about generation; none where the image was only enlarged."""
    if not isinstance(parameters, Parameters):
        return {}
    return {
        "seed": str(image.seed),
        "scheduler": str(parameters.scheduler),
        "num-inference-steps": str(parameters.num_inference_steps),
        "guidance-scale": str(parameters.guidance_scale),
    }
