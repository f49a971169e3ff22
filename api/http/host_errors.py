"""The host's own plain-text errors, written in our form."""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import MutableHeaders

from runnables.errors import StableDiffusionError, error_body

Message = MutableMapping[str, Any]
Asgi = Callable[..., Any]


def errors_as_json(send: Asgi) -> Asgi:
    """Return a `send` that replaces plain-text errors by our JSON; all else passes."""
    replaced = False

    async def watched(message: Message) -> None:
        nonlocal replaced
        if message["type"] == "http.response.start":
            replaced = _is_plain_error(message)
            if replaced:
                await _send_json(send, message)
        if not replaced:
            await send(message)

    return watched


def _is_plain_error(start: Message) -> bool:
    kind = MutableHeaders(scope=start).get("content-type", "")
    return bool(start["status"] >= 400 and kind.startswith("text/plain"))


async def _send_json(send: Asgi, start: Message) -> None:
    error = StableDiffusionError(HTTPStatus(start["status"]).phrase, loc=("path",))
    body = json.dumps(error_body(error)).encode()
    headers = MutableHeaders(scope=start)
    headers["content-type"] = "application/json"
    headers["content-length"] = str(len(body))
    await send(start)
    await send({"type": "http.response.body", "body": body})
