"""What is being drawn in this process: steps and previews, and who wants to hear of them."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runnables.ticket import Progress, Ticket

Key = tuple[str, str]  # owner and id


class Listener:
    """One subscriber, on its event loop.

    Attributes:
        every: it wants a preview at every such step; 0: none.
        preview: the latest progress that carried one for it.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.preview: Progress | None = None
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Until something has changed, or this long."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return
        self._changed.clear()

    def take_preview(self) -> Progress | None:
        """The latest preview, once."""
        preview, self.preview = self.preview, None
        return preview

    def tell(self, progress: Progress | None) -> None:
        """From any thread."""
        wanted = progress is not None and progress.preview is not None and self.every
        if wanted and progress and progress.step % self.every == 0:
            self.preview = progress
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:  # the loop is closed: its listener is gone with it
            return


class Hub:
    """Listeners by job. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[Key, list[Listener]] = {}

    @contextmanager
    def listening(self, key: Key, every: int) -> Iterator[Listener]:
        """A listener for as long as the block runs."""
        listener = Listener(every)
        with self._lock:
            self._listeners.setdefault(key, []).append(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners[key].remove(listener)
                if not self._listeners[key]:
                    del self._listeners[key]

    def every(self, key: Key) -> int:
        """Steps between previews that serve all listeners; 0: nobody wants any."""
        with self._lock:
            return math.gcd(*(listener.every for listener in self._listeners.get(key, ())))

    def changed(self, key: Key, progress: Progress | None = None) -> None:
        """Tell the listeners of a job."""
        with self._lock:
            listeners = list(self._listeners.get(key, ()))
        for listener in listeners:
            listener.tell(progress)


class Live:
    """A ticket in the engine, and its listeners."""

    def __init__(self, hub: Hub, key: Key) -> None:
        self.key = key
        self.ticket: Ticket | None = None
        self._hub = hub

    @property
    def progress(self) -> Progress | None:
        ticket = self.ticket
        return ticket.progress if ticket else None

    def on_step(self, progress: Progress) -> None:
        """The ticket's hook, on the engine's thread."""
        if (ticket := self.ticket) is not None:
            ticket.preview_every = self._hub.every(self.key)
        self._hub.changed(self.key, progress)

    def release(self) -> Ticket | None:
        """Let go of a ticket that has ended, so that its images are freed with the last user.

        The ticket holds `on_step` and so this: without it they would hold each other.
        """
        ticket, self.ticket = self.ticket, None
        return ticket

    def cancel(self) -> None:
        if (ticket := self.ticket) is not None:
            ticket.cancel()
