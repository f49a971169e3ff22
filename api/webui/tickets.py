"""What each caller is drawing: the WebUI's progress and interrupt know no ids.

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
class Drawn:
    """One request under way."""

    ticket: Ticket
    listener: Listener
    preview: Image | None = None
    interrupted: bool = False

    def look(self) -> Image | None:
        """The latest preview; none are drawn before somebody has asked for one."""
        self.listener.every = 1
        seen = self.listener.take_preview()
        if seen is not None:
            self.preview = seen.preview
        return self.preview

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        progress = self.ticket.progress
        return progress.step / progress.steps if progress.steps else 0.0


class Tickets:
    """Requests under way by owner. For one event loop."""

    def __init__(self) -> None:
        self._drawn: dict[str, list[Drawn]] = {}

    @contextmanager
    def following(self, owner: str, ticket: Ticket, listener: Listener) -> Iterator[Drawn]:
        """Know a request for as long as the block runs."""
        drawn = Drawn(ticket, listener)
        self._drawn.setdefault(owner, []).append(drawn)
        try:
            yield drawn
        finally:
            self._drawn[owner].remove(drawn)
            if not self._drawn[owner]:
                del self._drawn[owner]

    def of(self, owner: str) -> list[Drawn]:
        """The oldest first."""
        return list(self._drawn.get(owner, ()))

    def interrupt(self, owner: str) -> None:
        """Stop all that the owner is drawing."""
        for drawn in self.of(owner):
            drawn.interrupted = True
            drawn.ticket.cancel()
