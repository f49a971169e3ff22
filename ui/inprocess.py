"""HTTP to an ASGI application of the same process, with no port, TLS or proxy between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

Message = dict[str, Any]
Asgi = Callable[..., Any]


class InProcess(httpx.AsyncBaseTransport):
    """A transport that streams; httpx's own ASGITransport waits for the last byte of a response.

    Args:
        app: It is called for every request, on the loop of the request.
    """

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the response, whose body comes as it is read."""
        exchange = _Exchange(await request.aread())
        exchange.start(self._app, _scope(request))
        head = await exchange.next()
        return httpx.Response(head["status"], headers=head["headers"], stream=exchange)


class _Exchange(httpx.AsyncByteStream):
    """One request and its response. Closing it tells the application that the client has gone."""

    def __init__(self, body: bytes) -> None:
        self._unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._sent: asyncio.Queue[Message | None] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, app: Asgi, scope: Message) -> None:
        """Call the application in a task."""
        self._task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: Asgi, scope: Message) -> None:
        try:
            await app(scope, self._receive, self._sent.put)
        finally:
            self._sent.put_nowait(None)

    async def _receive(self) -> Message:
        if self._unread:
            return self._unread.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def next(self) -> Message:
        """Return the next message of the response. Raise ReadError where it ended too early."""
        message = await self._sent.get()
        if message is None:
            raise httpx.ReadError("the response ended early")
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self.next()
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def aclose(self) -> None:
        """Tell the application that the client has gone."""
        self._gone.set()


def _scope(request: httpx.Request) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": None,
        "server": (request.url.host, request.url.port),
    }
