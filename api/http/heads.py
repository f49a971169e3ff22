"""The head of a request has to arrive in time: uvicorn itself waits for it for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_S = 30.0  # from the connection's start, or from the first byte of a further request


def limit() -> None:
    """Have the servers that uvicorn starts in this process close connections without a head.

    Hosts make uvicorn's configuration themselves, with its default protocol "auto".
    """
    HTTP_PROTOCOLS["auto"] = f"{__name__}:TimedProtocol"


class Timed:
    """What a protocol of uvicorn needs to close connections whose head takes longer than HEAD_S."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    cycle: Any  # the request that is answered, or was last
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for the first head."""
        super().connection_made(transport)  # type: ignore[misc]
        self._timer = self.loop.call_later(HEAD_S, self._close)

    def data_received(self, data: bytes) -> None:
        """Wait no longer where a head is complete, and for the next one where it has begun."""
        super().data_received(data)  # type: ignore[misc]
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_S, self._close)

    def connection_lost(self, error: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(error)  # type: ignore[misc]

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        protocol: object = self.transport.get_protocol()
        if protocol is self:  # and not that of a WebSocket
            self.transport.close()


class TimedProtocol(Timed, AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's default protocol, with that limit."""
