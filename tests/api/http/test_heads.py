"""A connection that sends no head, or half of one, is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.http import heads

WAIT_S = 0.5
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answer after the time for a head, and after a body that takes longer than that."""
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(2 * WAIT_S)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [[b"content-length", b"0"]]}
    )
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture(params=[H11Protocol, HttpToolsProtocol])
def talk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Talk], Any]:
    """Run a conversation with a server of each of uvicorn's two protocols."""
    timed = type("TimedProtocol", (heads.Timed, request.param), {})
    monkeypatch.setattr(heads, "HEAD_S", WAIT_S)

    async def run(conversation: Talk) -> Any:
        config = uvicorn.Config(slow, port=0, http=timed, lifespan="off", timeout_keep_alive=60)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await asyncio.wait_for(conversation(reader, writer), 60)
        finally:
            writer.close()
            server.should_exit = True
            await serving

    return lambda conversation: asyncio.run(run(conversation))


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n", b"GET"])
def test_half_a_head_is_not_waited_for(talk: Callable[[Talk], Any], sent: bytes) -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(sent)
        return await reader.read()  # until the server closes

    assert talk(conversation) == b""


def test_nor_half_of_a_second_one(talk: Callable[[Talk], Any]) -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(REQUEST[:9])
        return await reader.read()

    assert talk(conversation) == b""


def test_an_answer_and_a_body_may_take_longer(talk: Callable[[Talk], Any]) -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(REQUEST.replace(b"\r\n\r\n", b"\r\ncontent-length: 2\r\n\r\n"))
        for part in (b"a", b"b"):
            await asyncio.sleep(2 * WAIT_S)
            writer.write(part)
        first = await reader.readuntil(b"\r\n\r\n")
        writer.write(REQUEST)
        return first + await reader.readuntil(b"\r\n\r\n")

    assert talk(conversation).count(b"200 OK") == 2


def test_uvicorn_takes_it_by_default() -> None:
    heads.limit()
    config = uvicorn.Config(slow)
    config.load()
    assert config.http_protocol_class is heads.TimedProtocol
