"""The page beside the service, which is built when first opened and costs nothing before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ui.inprocess import Asgi

logger = logging.getLogger(__name__)

Scope = Any
#: seconds between looks for a stop, and how long an answer may go on after it
LOOK_S, GRACE_S = 1.0, 1.0
#: what is shown while the page is built; it loads itself again
OPENING = b"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="refresh" content="1"><title>Stable Diffusion</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
</head><body style="font: 1.1rem system-ui; text-align: center; margin-top: 30vh">
<p>Opening the page ...</p></body></html>
"""


class Mounted:
    """An ASGI application for one path and everything below it.

    Args:
        api: The service's application; the page calls it in this process.
        path: The path of the page, such as `/ui`.
        max_upload_mb: The size of the largest file that a visitor may upload.
        max_pixels: The most pixels of a picture.
        stopping: Returns whether the host has to stop.
    """

    def __init__(
        self,
        api: Asgi,
        *,
        path: str = "/ui",
        max_upload_mb: float = 25.0,
        max_pixels: int = 2048 * 2048,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._api, self._path = api, path
        self._max_upload_mb, self._max_pixels = max_upload_mb, max_pixels
        self._stopping = stopping
        self._app: Asgi | None = None
        self._building = asyncio.Lock()
        self._opening: asyncio.Future[Asgi] | None = None
        self._life = AsyncExitStack()

    def owns(self, path: str) -> bool:
        """Return whether this path is the page's."""
        return path == self._path or path.startswith(self._path + "/")

    async def __call__(self, scope: Scope, receive: Asgi, send: Asgi) -> None:
        """Answer a request."""
        if scope["path"] == scope.get("root_path", "") + self._path:
            # a relative address holds behind every proxy
            await _answer(send, 307, {"location": self._path.rpartition("/")[2] + "/"})
            return
        if self._app is None and scope["path"].endswith(self._path + "/"):
            self._opening = self._opening or asyncio.ensure_future(self._built())
            await _answer(send, 200, {"content-type": "text/html; charset=utf-8"}, OPENING)
            return
        app = await self._built()
        below = {**scope, "root_path": scope.get("root_path", "") + self._path}
        await self._until_stopping(app(below, receive, send))

    async def _until_stopping(self, answer: Coroutine[Any, Any, None]) -> None:
        """Answer until the host stops: Gradio's streams last as long as the page is open."""
        task = asyncio.ensure_future(answer)
        try:
            while not task.done() and not self._stopping():
                await asyncio.wait([task], timeout=LOOK_S)
            if not task.done():
                await asyncio.wait([task], timeout=GRACE_S)
        finally:
            if not task.done():
                task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _built(self) -> Asgi:
        async with self._building:
            if self._app is None:
                app = await asyncio.to_thread(self._build)
                await self._life.enter_async_context(app.router.lifespan_context(app))
                self._app = app
            return self._app

    def _build(self) -> Any:
        """Build the page. This imports Gradio, which takes seconds and 100 MB."""
        import httpx

        from ui.app import build
        from ui.client import TIMEOUT, Service
        from ui.inprocess import InProcess

        transport = InProcess(self._api)
        http = httpx.AsyncClient(transport=transport, base_url="http://service", timeout=TIMEOUT)
        return build(Service(http), max_upload_mb=self._max_upload_mb, max_pixels=self._max_pixels)


async def _answer(send: Asgi, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
