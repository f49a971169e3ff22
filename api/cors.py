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
IMAGINE = "/imagine"  # generates by GET
UNNAMED = "other sites"  # a page that the browser does not name
REFUSED = (
    "SD_CORS_ORIGINS does not name the origin of the page, {}. If it is the service's own page, "
    "the proxy before the service has to pass the Host header on"
)


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
        if scope["type"] == "http" and (origin := self._foreign(Headers(scope=scope))):
            generates = scope["method"] not in SAFE or path_of(scope) == IMAGINE
            if generates or origin != UNNAMED:
                self._log(origin)
            if generates:
                error = Forbidden(REFUSED.format(origin), loc=("origin",))
                await errors.response(path_of(scope), error)(scope, receive, send)
                return
        await self._answer(scope, receive, send)

    def _foreign(self, headers: Headers) -> str | None:
        """Return the origin of the page that calls, where it is another one and not allowed."""
        origin = headers.get("origin", "") or _origin_of(headers.get("referer", ""))
        site = headers.get("sec-fetch-site")
        own = origin.partition("://")[2] == headers.get("host")
        foreign = site not in ("same-origin", "none") if site else "origin" in headers and not own
        if not foreign or self._cors.is_allowed_origin(origin):
            return None
        return origin[:200] or UNNAMED

    def _log(self, origin: str) -> None:
        """Log an origin that is not allowed, the first time."""
        if origin not in self._refused and len(self._refused) < MOST:
            self._refused.add(origin)
            logger.warning(
                "pages of %s may not call, and browsers do not let them read our answers: "
                "SD_CORS_ORIGINS allows %s",
                origin,
                self._allowed,
            )


def _origin_of(url: str) -> str:
    """Return the origin of an address; browsers send no more of a page's address to other sites."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}" if rest else ""
