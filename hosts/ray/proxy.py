"""Changes to Serve's HTTP proxy: request ids in our form, no bare 500, a time limit for heads.

Ray imports it by name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=hosts.ray.proxy.middlewares.
"""

from __future__ import annotations

import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware

from api import errors as error_forms
from api.http import heads
from api.http.gateway import Asgi
from api.http.host_errors import errors_as_json
from api.http.proxies import path_of
from runnables.errors import NotReady

ID = "x-request-id"


def middlewares() -> list[Middleware]:
    """Ray's callback, which it calls before it starts its server."""
    heads.limit()
    return [Middleware(Around)]


class Around:
    """The outermost middleware of the proxy."""

    def __init__(self, app: Asgi) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Asgi, send: Asgi) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        MutableHeaders(scope=scope).setdefault(ID, uuid.uuid4().hex)
        started = False

        async def answered(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            _keep_one_id(message)
            await errors(message)

        errors = errors_as_json(send)
        await self.app(scope, receive, answered)
        if not started:  # the ingress died with the request: Serve says nothing then
            error = NotReady("the replica that had this request was lost: send it again")
            await error_forms.response(path_of(scope), error)(scope, receive, send)


def _keep_one_id(message: MutableMapping[str, Any]) -> None:
    """The application's; Serve adds its own beside it."""
    if message["type"] == "http.response.start":
        headers = MutableHeaders(scope=message)
        headers[ID] = headers[ID]
