"""The id of a request: the client's `X-Request-Id` where it is a valid one, else a new one."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.requests import Request

HEADER = "x-request-id"
#: what ids of requests and jobs may be: they stand in paths, headers and logs
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def assign(scope: MutableMapping[str, Any]) -> str:
    """Return the id of this request, which is in its scope from here on."""
    state: dict[str, Any] = scope.setdefault("state", {})
    if "request_id" not in state:
        sent = Headers(scope=scope).get(HEADER, "")
        state["request_id"] = sent if ID.fullmatch(sent) else _new(scope)
    return str(state["request_id"])


def _new(scope: MutableMapping[str, Any]) -> str:
    """Return a new id; at OpenAI's paths it looks as OpenAI's do."""
    openai = scope.get("path", "").startswith(f"{scope.get('root_path', '')}/v1/")
    return f"req_{uuid4().hex}" if openai else uuid4().hex


def of(request: Request) -> str:
    """Return the id of a request."""
    return assign(request.scope)
