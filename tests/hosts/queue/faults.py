"""A proxy before a stand-in for AWS that lets calls of some services fail.

Half of the failing calls never reach the service; the other half do, and their answer is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

SERVICE = re.compile(r"Credential=[^/]+/\d+/[^/]+/(\w+)/")
HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "keep-alive"}


class Faults:
    """Which calls failed: `failed[service]` of `seen[service]`."""

    def __init__(self, target: str, share: float, services: set[str], seed: int = 0) -> None:
        self.target, self.share, self.services = target, share, services
        self.seen: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._rng = random.Random(seed)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        found = SERVICE.search(request.headers.get("Authorization", ""))
        service = found[1] if found else ""
        self.seen[service] += 1
        fails = service in self.services and self._rng.random() < self.share
        body = await request.read()
        if fails:
            self.failed[service] += 1
            if self._rng.random() < 0.5:
                return _planted(service, 503)
        answer = await self._forward(request, body)
        return _planted(service, 500) if fails else answer

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP}
        target = urlsplit(self.target)  # the rest stays as it was signed: quoted as it came
        url = request.url.with_host(str(target.hostname)).with_port(target.port)
        async with self._client.request(
            request.method, url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            data = await answer.read()
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP}
            return web.Response(status=answer.status, body=data, headers=kept)

    async def _serve(self, started: threading.Event, port: list[int]) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        self._client = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{rest:.*}", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.append(runner.addresses[0][1])
        started.set()
        await asyncio.Event().wait()


def _planted(service: str, status: int) -> web.Response:
    error = "<Error><Code>InternalError</Code><Message>planted</Message></Error>"
    text = error if service == "s3" else f"<ErrorResponse>{error}</ErrorResponse>"
    return web.Response(status=status, text=text, content_type="text/xml")


@contextmanager
def proxy(target: str, share: float, services: set[str]) -> Iterator[tuple[str, Faults]]:
    """The proxy's endpoint, and its account."""
    faults, started = Faults(target, share, services), threading.Event()
    port: list[int] = []
    loop = asyncio.new_event_loop()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        with contextlib.suppress(RuntimeError):  # stopped
            loop.run_until_complete(faults._serve(started, port))

    threading.Thread(target=serve, daemon=True).start()
    started.wait(300)
    yield f"http://127.0.0.1:{port[0]}", faults
    asyncio.run_coroutine_threadsafe(faults._client.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
