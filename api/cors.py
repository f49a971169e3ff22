"""Pages of other sites may call and read answers where the operator allows it.

Without a key, any page that a browser shows could have a service on the same machine work: browsers
send simple POSTs to other sites, and hide only the answers. So these are refused, by what browsers
say of each request (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site)
and, in older ones, by the origin. Programs that are no browsers send neither header.
"""

from __future__ import annotations

import logging

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api import errors
from api.http.proxies import path_of
from runnables.errors import Forbidden

logger = logging.getLogger(__name__)

MOST = 20  # refused origins that are logged, each once


SAFE = {"GET", "HEAD", "OPTIONS"}


class Cors:
    """An application that answers pages of other sites where the operator allows their origins.

    A browser tells its page nothing about a refusal, so that the log tells the operator.

    Args:
        origins: SD_CORS_ORIGINS.
    """

    def __init__(self, app: ASGIApp, origins: str) -> None:
        allowed = [origin.strip() for origin in origins.split(",") if origin.strip()]
        self._cors = CORSMiddleware(
            app,
            allow_origins=allowed,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
        self.app = app
        self._answer: ASGIApp = self._cors if allowed else app
        self._allowed = ", ".join(allowed) or "none"
        self._refused: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        refused = scope["type"] == "http" and self._is_refused(Headers(scope=scope))
        if refused and scope["method"] not in SAFE:
            error = Forbidden("SD_CORS_ORIGINS does not name the page's origin", loc=("origin",))
            await errors.response(path_of(scope), error)(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    def _is_refused(self, headers: Headers) -> bool:
        """Return whether a page calls whose origin is not allowed, and log it the first time."""
        origin = headers.get("origin", "")[:200]
        site = headers.get("sec-fetch-site")
        own = origin.partition("://")[2] == headers.get("host")
        foreign = site not in ("same-origin", "none") if site else bool(origin) and not own
        if not foreign or self._cors.is_allowed_origin(origin):
            return False
        if origin not in self._refused and len(self._refused) < MOST:
            self._refused.add(origin)
            logger.warning(
                "browsers do not let pages of %s call or read our answers: "
                "SD_CORS_ORIGINS allows %s",
                origin or "other sites",
                self._allowed,
            )
        return True
