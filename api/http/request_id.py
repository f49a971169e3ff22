"""The id of a request: the client's `X-Request-Id` where it is a valid one, else a new one."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.requests import Request

from api.jobs.job import valid_id

HEADER = "x-request-id"


def assign(scope: MutableMapping[str, Any]) -> str:
    """The id of this request, from here on in its scope."""
    state: dict[str, Any] = scope.setdefault("state", {})
    if "request_id" not in state:
        given = Headers(scope=scope).get(HEADER, "")
        state["request_id"] = given if valid_id(given) else uuid4().hex
    return str(state["request_id"])


def of(request: Request) -> str:
    """The id of a request."""
    return assign(request.scope)
