"""The bodies that are being read: each is limited in size and in time, and all of them in size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from runnables.errors import InvalidInput, OverCapacity, PayloadTooLarge

Asgi = Callable[..., Any]
#: bodies of the largest size that are in memory at a time
LARGEST_AT_ONCE = 8
#: a body of so many bytes is read however many others are
SMALL = 64 * 1024
SILENCE_S = 30.0  # between two parts of a body
WHOLE_S = 600.0


class TooSlow(InvalidInput):
    """An error: the body did not arrive in time."""

    status = 408


class Bodies:
    """All bodies that the service reads now. They belong to one event loop.

    Args:
        largest: The most bytes of one body.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._bytes = 0  # of all bodies whose requests have not ended

    @contextmanager
    def reading(self, receive: Asgi) -> Iterator[Asgi]:
        """Yield a `receive` with these limits, for as long as its request is answered."""
        body = _Body(self, receive)
        try:
            yield body.receive
        finally:
            self._bytes -= body.size

    def take(self, size: int, whole: int) -> None:
        """Count a part of a body.

        Raises:
            PayloadTooLarge: The body is too large.
            OverCapacity: Too many large bodies are being read.
        """
        self._bytes += size
        if whole > self.largest:
            raise PayloadTooLarge(
                f"the body is larger than {self.largest / 1e6:.0f} MB", loc=("body",)
            )
        if whole > SMALL and self._bytes > LARGEST_AT_ONCE * self.largest:
            raise OverCapacity("too many large bodies are being read; send it again", retry_after=5)


class _Body:
    def __init__(self, bodies: Bodies, receive: Asgi) -> None:
        self.size = 0
        self._bodies, self._receive = bodies, receive
        self._ends = time.monotonic() + WHOLE_S
        self._complete = False

    async def receive(self) -> Any:
        """Return the next message; what comes behind the body may take as long as it likes."""
        if self._complete:
            return await self._receive()
        left = min(SILENCE_S, self._ends - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0))
        except TimeoutError as error:
            raise TooSlow("the body did not arrive in time", loc=("body",)) from error
        self._complete = not message.get("more_body", False)
        size = len(message.get("body", b""))
        self.size += size
        self._bodies.take(size, self.size)
        return message
