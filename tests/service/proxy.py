"""A reverse proxy that strips a path prefix and says so, as Traefik's StripPrefix does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

HOP = {"connection", "keep-alive", "transfer-encoding", "host"}  # RFC 9110, section 7.6.1
METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"]


@contextmanager
def stripping(service: str, prefix: str, **forwarded: str) -> Iterator[str]:
    """Yield the address of a proxy that passes what lies below the prefix on, without it.

    Args:
        forwarded: Further headers that it sends, with underscores for hyphens.
    """
    http = httpx.AsyncClient(base_url=service, timeout=300)

    async def passed(request: Request) -> Response:
        path = request.url.path
        if not path.startswith(prefix + "/"):
            return PlainTextResponse("not of this service", 404)
        headers = [pair for pair in request.headers.items() if pair[0] not in HOP]
        headers += [("x-forwarded-prefix", prefix), ("x-forwarded-proto", request.url.scheme)]
        headers += [("x-forwarded-host", request.headers["host"])]
        headers += [("x-forwarded-for", "203.0.113.9")]
        headers += [(name.replace("_", "-"), value) for name, value in forwarded.items()]
        inner = http.build_request(
            request.method,
            path.removeprefix(prefix) + f"?{request.url.query}",
            headers=headers,
            content=await request.body(),
        )
        answer = await http.send(inner, stream=True)
        kept = {k: v for k, v in answer.headers.items() if k not in HOP}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept)

    app = Starlette(routes=[Route("/{path:path}", passed, methods=METHODS)])
    config = uvicorn.Config(app, "127.0.0.1", 0, log_level="error", proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}{prefix}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
