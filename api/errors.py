"""In whose form an error is told: that of the API whose path was called."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from api.http.responses import retry_headers
from api.http.validation import Invalid
from api.openai import errors as openai
from api.webui import errors as webui
from runnables.errors import Loc, StableDiffusionError, error_body

WEBUI = ("/sdapi/", "/controlnet/")


def response(path: str, error: StableDiffusionError) -> JSONResponse:
    """One of our errors with its status, for whoever called this path."""
    return JSONResponse(body(path, error), error.status, headers=retry_headers(error))


def body(path: str, error: StableDiffusionError) -> dict[str, Any]:
    """One of our errors, for whoever called this path."""
    if path.startswith("/v1/"):
        return openai.of(error)
    if path.startswith(WEBUI):
        return webui.body(error.status, error.message)
    told = error_body(error)
    return {**told, "detail": error.problems} if isinstance(error, Invalid) else told


def plain(path: str, status: int, message: str, loc: Loc = ()) -> dict[str, Any]:
    """Any other error."""
    if path.startswith("/v1/"):
        return openai.body(status, message, loc)
    if path.startswith(WEBUI):
        return webui.body(status, message)
    return {"error": message, "detail": [{"loc": list(loc), "msg": message}]}
