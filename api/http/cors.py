"""Pages of other sites may read answers where the operator allows it; else the log says so."""

from __future__ import annotations

import logging

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)

MOST = 20  # refused origins that are logged, each once


class Cors:
    """An application that adds CORS headers where the operator allows origins.

    A browser tells its page nothing about a refusal, so that the operator is told.

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
        if scope["type"] == "http":
            self._look(Headers(scope=scope))
        await self._answer(scope, receive, send)

    def _look(self, headers: Headers) -> None:
        """Log an origin, the first time, whose pages are not allowed to read the answer."""
        origin = headers.get("origin", "")[:200]
        own = origin.partition("://")[2] == headers.get("host")
        if not origin or own or self._cors.is_allowed_origin(origin):
            return
        if origin not in self._refused and len(self._refused) < MOST:
            self._refused.add(origin)
            logger.warning(
                "browsers do not let pages of %s read our answers: SD_CORS_ORIGINS allows %s",
                origin,
                self._allowed,
            )
