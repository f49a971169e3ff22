"""Bodies are limited, each and all together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.http import bodies
from api.http.bodies import Bodies, TooSlow
from runnables.errors import OverCapacity, PayloadTooLarge

LARGEST = 200_000


class Sent:
    """A client that sends parts, and then says nothing more."""

    def __init__(self, *parts: bytes, ends: bool = True) -> None:
        last = len(parts) - 1
        self._parts = [
            {"type": "http.request", "body": part, "more_body": i < last or not ends}
            for i, part in enumerate(parts)
        ]

    async def __call__(self) -> Any:
        return self._parts.pop(0) if self._parts else await asyncio.Event().wait()


async def read(receive: Any) -> int:
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    return size


def test_a_body_that_is_small_enough() -> None:
    async def run() -> int:
        with Bodies(LARGEST).reading(Sent(b"x" * LARGEST)) as receive:
            return await read(receive)

    assert asyncio.run(run()) == LARGEST


def test_a_body_that_is_too_large() -> None:
    async def run() -> None:
        with Bodies(LARGEST).reading(Sent(b"x" * LARGEST, b"x")) as receive:
            await read(receive)

    with pytest.raises(PayloadTooLarge):
        asyncio.run(run())


def test_all_together_are_limited_and_small_ones_are_always_read() -> None:
    async def run() -> None:
        every = Bodies(LARGEST)
        with every.reading(Sent(b"x" * LARGEST)) as first:
            await read(first)
            for _ in range(bodies.LARGEST_AT_ONCE - 1):
                with every.reading(Sent(b"x" * LARGEST)) as receive:
                    await read(receive)  # its memory is free when its request has ended
            kept = [every.reading(Sent(b"x" * LARGEST)) for _ in range(bodies.LARGEST_AT_ONCE - 1)]
            for one in kept:
                await read(one.__enter__())
            with every.reading(Sent(b"x" * bodies.SMALL)) as small:
                assert await read(small) == bodies.SMALL
            with every.reading(Sent(b"x" * LARGEST)) as receive, pytest.raises(OverCapacity):
                await read(receive)
            for one in kept:
                one.__exit__(None, None, None)
            with every.reading(Sent(b"x" * LARGEST)) as receive:
                assert await read(receive) == LARGEST

    asyncio.run(run())


@pytest.mark.parametrize("limit", ["SILENCE_S", "WHOLE_S"])
def test_a_body_that_stops_arriving(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(bodies, limit, 0.05)

    async def run() -> None:
        with Bodies(LARGEST).reading(Sent(b"x", ends=False)) as receive:
            await read(receive)

    with pytest.raises(TooSlow):
        asyncio.run(run())


def test_what_comes_behind_a_body_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.05)

    async def run() -> None:
        with Bodies(LARGEST).reading(Sent(b"x")) as receive:
            await read(receive)
            with pytest.raises(TimeoutError):  # the test's own
                await asyncio.wait_for(receive(), 0.3)

    asyncio.run(run())
