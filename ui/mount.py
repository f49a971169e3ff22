"""The page beside the service: built when first asked for, so that it costs nothing before."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ui.inprocess import Asgi

logger = logging.getLogger(__name__)

Scope = Any


class Mounted:
    """An ASGI application for one path and everything below it.

    Args:
        api: the service's application; the page calls it in this process.
        path: where the page lies, such as `/ui`.
        max_upload_mb: largest picture a visitor may bring.
    """

    def __init__(self, api: Asgi, *, path: str = "/ui", max_upload_mb: float = 25.0) -> None:
        self._api, self._path, self._max_upload_mb = api, path, max_upload_mb
        self._app: Asgi | None = None
        self._building = asyncio.Lock()
        self._life = AsyncExitStack()

    def owns(self, path: str) -> bool:
        """Whether this path is the page's."""
        return path == self._path or path.startswith(self._path + "/")

    async def __call__(self, scope: Scope, receive: Asgi, send: Asgi) -> None:
        if scope["path"] == scope.get("root_path", "") + self._path:
            await _redirect(send, self._path.rpartition("/")[2] + "/")
            return
        app = await self._built()
        below = {**scope, "root_path": scope.get("root_path", "") + self._path}
        await app(below, receive, send)

    async def _built(self) -> Asgi:
        async with self._building:
            if self._app is None:
                app = await asyncio.to_thread(self._build)
                await self._life.enter_async_context(app.router.lifespan_context(app))
                self._app = app
            return self._app

    def _build(self) -> Any:
        """Imports Gradio, which takes seconds and 100 MB."""
        import httpx

        from ui.app import build
        from ui.client import TIMEOUT, Service
        from ui.inprocess import InProcess

        transport = InProcess(self._api)
        http = httpx.AsyncClient(transport=transport, base_url="http://service", timeout=TIMEOUT)
        return build(Service(http), max_upload_mb=self._max_upload_mb)


async def _redirect(send: Asgi, location: str) -> None:
    """To a relative address, which holds behind every proxy."""
    headers = [(b"location", location.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
