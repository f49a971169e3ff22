"""Who is let in and who waits. Refusals carry a reason, and are counted by the host."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from runnables.engine.plan import Request
from runnables.engine.upscale import UpscaleRequest
from runnables.errors import NotReady, OverCapacity
from runnables.ticket import Progress

Accepted = Request | UpscaleRequest


class Queue:
    """Requests that are accepted but not drawn yet, most urgent first. Thread-safe.

    Args:
        max_wait: seconds of estimated waiting beyond which requests are refused.
        busy: seconds of work in what is being drawn.
        share: seconds of work in one request.
    """

    def __init__(
        self, max_wait: float, busy: Callable[[], float], share: Callable[[Accepted], float]
    ) -> None:
        self._max_wait = max_wait
        self._busy = busy
        self._share = share
        self._waiting: list[Accepted] = []
        self._changed = threading.Condition()
        self.closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first_urgency(self) -> float:
        """Urgency of the next request; infinity where none waits."""
        with self._changed:
            return self._waiting[0].urgency if self._waiting else math.inf

    def admit(self, request: Accepted) -> None:
        """Let a request in.

        Raises:
            NotReady: draining.
            OverCapacity: it would wait longer than allowed, or past its own deadline.
        """
        with self._changed:
            if self.closed:
                raise NotReady("the service is stopping and takes no new requests")
            ahead = [other for other in self._waiting if other.urgency <= request.urgency]
            wait = self._busy() + sum(map(self._share, ahead))
            room = min(self._max_wait, request.expires - time.monotonic() - request.cost)
            if wait > max(room, 0.0) and wait > 0:
                raise OverCapacity(
                    f"about {wait:.0f} s of work are ahead; try again later",
                    retry_after=wait - max(room, 0.0),
                )
            self._waiting.append(request)
            self._waiting.sort(key=lambda other: other.urgency)
            self._number()
            self._changed.notify_all()

    def take(self) -> Accepted | None:
        """The most urgent waiting request."""
        with self._changed:
            request = self._waiting.pop(0) if self._waiting else None
            self._number()
            return request

    def discard(self, ended: Callable[[Accepted], bool]) -> list[Accepted]:
        """Take out the requests that have ended while they waited (cancelled, expired)."""
        with self._changed:
            out = [request for request in self._waiting if ended(request)]
            if out:
                self._waiting = [request for request in self._waiting if request not in out]
                self._number()
            return out

    def close(self) -> None:
        """Refuse whatever comes from now on."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wake(self) -> None:
        """End a `wait`: there is something else to do."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Sleep until something is admitted, or the queue is being closed, or the timeout."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(timeout)

    def _number(self) -> None:
        """Tell every waiting request its position, and when it should be drawn."""
        wait = self._busy() if self._waiting else 0.0
        for position, request in enumerate(self._waiting):
            eta = wait + request.cost
            request.ticket.progress = Progress("queued", 0, request.steps, position, eta)
            wait += self._share(request)
