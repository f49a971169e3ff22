"""The ASGI middleware in front of the host: size limit, access log, and who answers which path.

Our routes are answered by our application, so that every body is parsed and every error is written
in one way; the host keeps what is its own (its metrics, its schema, its static files).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse

from api.http import log, request_id
from api.http.bodies import Bodies
from api.http.host_errors import errors_as_json
from api.http.proxies import Proxies, path_of
from runnables.errors import StableDiffusionError, error_body
from runnables.settings import Settings

logger = logging.getLogger("stable_diffusion.access")

Scope = MutableMapping[str, Any]
Asgi = Callable[..., Any]
#: paths the host answers itself: few, as BentoML keeps a metric of each path it has seen
SWAGGER = ("swagger-ui.css", "swagger-ui-bundle.js")
HOST_PATHS = {"/metrics", "/schema.json", *(f"/static_content/{name}" for name in SWAGGER)}


#: what is not logged while all is well
PROBES = {"/readyz", "/livez", "/healthz", "/health", "/v1/health"}
MAX_HEADERS = 64 * 1024  # bytes


class Gateway:
    """A switch between the network and two applications: ours and the host's."""

    def __init__(self, settings: Settings) -> None:
        self._bodies = Bodies(round(settings.max_body_mb * 1e6))
        self._proxies = Proxies(settings)
        self.app: Asgi | None = None

    def serve(self, app: Asgi) -> None:
        """Answer our paths with this application from now on."""
        self.app = app

    def around(self, host: Asgi) -> Asgi:
        """Return the middleware around a host's application.

        It stands before the host's own middleware, too, once that has started: BentoML keeps a
        metric of every path, so of every job's, and each request's trace for the whole of
        `traffic.timeout`.
        """

        async def middleware(scope: Scope, receive: Asgi, send: Asgi) -> None:
            application = scope.get("app")  # where we are not the outermost already
            if scope["type"] == "lifespan" and application is not None:
                application.middleware_stack = self._before(application.middleware_stack)
            await self._route(host, scope, receive, send)

        return middleware

    def _before(self, host: Asgi) -> Asgi:
        async def front(scope: Scope, receive: Asgi, send: Asgi) -> None:
            await self._route(host, scope, receive, send)

        return front

    async def _route(self, host: Asgi, scope: Scope, receive: Asgi, send: Asgi) -> None:
        if scope["type"] != "http" or self.app is None:
            await host(scope, receive, errors_as_json(send))
            return
        mounted, scope = scope.get("root_path", ""), await self._proxies.placed(scope)
        path = path_of(scope)
        if path in HOST_PATHS:  # the host knows nothing of our prefix
            inner = {**scope, "root_path": mounted, "path": mounted + path}
            await host(inner, receive, errors_as_json(send))
            return
        started = time.perf_counter()
        seen: dict[str, Any] = {"status": 0, "id": request_id.assign(scope)}
        log.request_id.set(seen["id"])
        log.key_name.set("")

        async def watched(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                seen["status"] = message["status"]
                headers[request_id.HEADER] = seen["id"]
            await send(message)

        try:
            with self._bodies.reading(receive) as limited:
                await self._answer(scope, limited, watched)
        except Exception:
            if seen["status"] < 500:  # else it is logged, and was answered
                logger.exception("a response could not be sent")
        self._log(scope, seen, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Asgi, send: Asgi) -> None:
        assert self.app is not None
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
            error = StableDiffusionError(f"the headers are larger than {MAX_HEADERS} bytes")
            await JSONResponse(error_body(error), 431)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _log(self, scope: Scope, seen: dict[str, Any], seconds: float) -> None:
        if path_of(scope) in PROBES and seen["status"] == 200:
            return
        entry = {
            "method": scope["method"],
            "path": _one_line(scope["path"]),
            "status": seen["status"],
            "ms": round(1000 * seconds, 1),
            "id": seen["id"],
        }
        text = "%(method)s %(path)s %(status)d %(ms).1f ms %(id)s"
        logger.info(text, entry, extra={"fields": entry})


def _one_line(path: str) -> str:
    """Return a path in which line breaks and control characters are escaped."""
    return path.encode("unicode_escape").decode("ascii")
