"""The requests of each caller that run now: the WebUI's progress and interrupt know no ids.

There they are global. Here they concern the caller's own requests: those made with the same API key
(all of them where the service has no keys), the oldest first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL.Image import Image

from api.progress.live import Listener
from runnables.ticket import Ticket


@dataclass(eq=False)
class Running:
    """One request that runs."""

    ticket: Ticket
    listener: Listener
    preview: Image | None = None
    interrupted: bool = False

    def look(self) -> Image | None:
        """Return the latest preview; none are made before somebody wants one."""
        self.listener.every = 1
        seen = self.listener.take_preview()
        if seen is not None:
            self.preview = seen.preview
        return self.preview

    @property
    def share(self) -> float:
        """The finished share of it, 0 to 1."""
        progress = self.ticket.progress
        return progress.step / progress.steps if progress.steps else 0.0


class Tickets:
    """Running requests by owner. They belong to one event loop."""

    def __init__(self) -> None:
        self._running: dict[str, list[Running]] = {}

    @contextmanager
    def following(self, owner: str, ticket: Ticket, listener: Listener) -> Iterator[Running]:
        """Keep a request for as long as the block runs."""
        running = Running(ticket, listener)
        self._running.setdefault(owner, []).append(running)
        try:
            yield running
        finally:
            self._running[owner].remove(running)
            if not self._running[owner]:
                del self._running[owner]

    def of(self, owner: str) -> list[Running]:
        """Return the owner's running requests, the oldest first."""
        return list(self._running.get(owner, ()))

    def interrupt(self, owner: str) -> None:
        """Stop all requests of the owner."""
        for running in self.of(owner):
            running.interrupted = True
            running.ticket.cancel()
