"""A client that goes away while it sends is no error, and an error is logged once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import errors
from api.http.gateway import Gateway
from runnables.settings import Settings


async def reads(request: Request) -> Response:
    return Response(await request.body())


async def fails(request: Request) -> Response:
    raise RuntimeError("broken")


def answer(path: str, *messages: dict[str, Any]) -> int:
    """Send a request through the gateway; return the status of its answer."""
    routes = [Route(f"/{one.__name__}", one, methods=["POST"]) for one in (reads, fails)]
    gateway = Gateway(Settings())
    gateway.serve(Starlette(routes=routes, exception_handlers=dict(errors.HANDLERS)))
    sent: list[Any] = []
    left = list(messages)
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "http_version": "1.1",
    }

    async def receive() -> Any:
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async def host(*rest: Any) -> None:
        raise AssertionError

    asyncio.run(gateway.around(host)(scope, receive, send))
    return int(sent[0]["status"])


def test_a_client_that_goes_away_while_it_sends(caplog: pytest.LogCaptureFixture) -> None:
    part = {"type": "http.request", "body": b"x", "more_body": True}
    assert answer("/reads", part, {"type": "http.disconnect"}) == 499
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_an_error_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    assert answer("/fails", {"type": "http.request", "body": b""}) == 500
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.exc_info and "internal error" in record.getMessage()
