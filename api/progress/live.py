"""Tickets that this process works on, and listeners that wait for their steps and previews."""

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
        every: The subscriber wants a preview at every such step; 0 means none.
        preview: The latest progress that carried a preview for it.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.preview: Progress | None = None
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait until something has changed, or this long."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return
        self._changed.clear()

    def take_preview(self) -> Progress | None:
        """Return the latest preview, each one once."""
        preview, self.preview = self.preview, None
        return preview

    def notify(self, progress: Progress | None) -> None:
        """Wake the subscriber. It may be called from any thread."""
        wanted = progress is not None and progress.preview is not None and self.every
        if wanted and progress and progress.previewed % self.every == 0:
            self.preview = progress
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:  # the loop is closed: its listener is gone with it
            return


class Hub:
    """Listeners by request. It is thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[Key, list[Listener]] = {}

    @contextmanager
    def listening(self, key: Key, every: int) -> Iterator[Listener]:
        """Keep a listener for as long as the block runs."""
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
        """Return the steps between previews that serve all listeners; 0 if nobody wants any."""
        with self._lock:
            return math.gcd(*(listener.every for listener in self._listeners.get(key, ())))

    def changed(self, key: Key, progress: Progress | None = None) -> None:
        """Notify the listeners of a request."""
        with self._lock:
            listeners = list(self._listeners.get(key, ()))
        for listener in listeners:
            listener.notify(progress)


class Live:
    """A ticket in the engine, and its listeners.

    They listen to the request's id, which several requests may have, or to the ticket's.
    """

    def __init__(self, hub: Hub, key: Key) -> None:
        self.key = key
        self.ticket: Ticket | None = None
        self._hub = hub

    @property
    def progress(self) -> Progress | None:
        """The ticket's progress; None while there is no ticket."""
        ticket = self.ticket
        return ticket.progress if ticket else None

    def on_step(self, progress: Progress) -> None:
        """Pass progress on to the listeners. The ticket calls this on the engine's thread."""
        if (ticket := self.ticket) is not None:
            own = (self.key[0], ticket.id)
            ticket.preview_every = math.gcd(self._hub.every(self.key), self._hub.every(own))
            self._hub.changed(own, progress)
        self._hub.changed(self.key, progress)

    def release(self) -> Ticket | None:
        """Drop a ticket that has ended, so that its images are freed with the last user.

        The ticket refers to `on_step` and so to this object: without it they would refer to each
        other.
        """
        ticket, self.ticket = self.ticket, None
        return ticket

    def cancel(self) -> None:
        """Cancel the ticket, if there is one."""
        if (ticket := self.ticket) is not None:
            ticket.cancel()
