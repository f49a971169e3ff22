"""Errors to responses, in the form of the API whose path was called."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from api.http.internal import internal
from api.http.proxies import path_of
from api.http.responses import retry_headers
from api.jobs.jobs import unusable
from api.openai import errors as openai
from api.webui import errors as webui
from runnables.errors import Cancelled, StableDiffusionError, error_body


class _Json(JSONResponse):
    """JSON that repeats whatever a caller has sent: half surrogates become question marks."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


#: beginning of a path -> how its API writes an error
FORMS = {"/v1/": openai.body, "/sdapi/": webui.body, "/controlnet/": webui.body}


def response(
    path: str, error: StableDiffusionError, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error with its status, in the form of the API that has this path."""
    every = {**retry_headers(error), **(headers or {})}
    return _Json(body(path, error), error.status, headers=every)


def body(path: str, error: StableDiffusionError) -> dict[str, Any]:
    """Return an error in the form of the API that has this path."""
    form = next((form for start, form in FORMS.items() if path.startswith(start)), error_body)
    return form(error)


async def _handle(request: Request, error: Exception) -> Response:
    assert isinstance(error, StableDiffusionError)
    return response(path_of(request.scope), error)


async def _handle_http(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: no such path, or another method."""
    assert isinstance(error, HTTPException)
    refused = StableDiffusionError(error.detail, loc=("path",))
    refused.status = error.status_code
    return response(path_of(request.scope), refused, error.headers)


async def _handle_store(request: Request, error: Exception) -> Response:
    """Answer where the database of jobs is full, gone or damaged: the operator has to mend it."""
    assert isinstance(error, sqlite3.Error)
    return response(path_of(request.scope), unusable(error))


async def _handle_gone(request: Request, error: Exception) -> Response:
    """Answer nobody: the client went away while it sent its request."""
    return Response(status_code=Cancelled.status)


async def _handle_unknown(request: Request, error: Exception) -> Response:
    return response(path_of(request.scope), internal(error))


#: for Starlette
HANDLERS = {
    StableDiffusionError: _handle,
    HTTPException: _handle_http,
    sqlite3.Error: _handle_store,
    ClientDisconnect: _handle_gone,
    Exception: _handle_unknown,
}
