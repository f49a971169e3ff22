"""The watch sees that every accepted request ends, and that the engine's thread does its work.

It has a thread of its own, so that deadlines and cancels hold while the engine's thread stands
still in a kernel or driver call, and after it has died.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from runnables.errors import EngineFailed, StableDiffusionError
from runnables.ticket import Ticket, settle

logger = logging.getLogger(__name__)

Observe = Callable[[str, float, int], None]  # takes stage, seconds and rows of a piece of work

LOOK_S = 0.25
LATE_S = 1.0  # how long the engine's thread has to end a request whose time is over
SLOWER = 20.0  # a call stands still once it takes so many times the estimate
DIED = "the engine failed before this request was finished; try again"
STANDS_STILL = "the engine stands still; this request was given up"


class Watch:
    """A watch runs the engine's thread, ends what that thread does not end, and restarts it once.

    Args:
        run: the work of the engine's thread; it returns only when the engine is closed.
        forget: called before a restart, when every request has been ended: drop all work.
        safe: called after the thread has died; returns whether a restart can succeed.
        over: returns the error that ends a ticket now, or None while its time goes on.
        stall_s: seconds without a `beat` after which the thread stands still.
        clock: returns seconds, as time.monotonic does.
    """

    def __init__(
        self,
        run: Callable[[], None],
        *,
        forget: Callable[[], None],
        safe: Callable[[], bool],
        over: Callable[[Ticket], StableDiffusionError | None],
        stall_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._forget = forget
        self._safe = safe
        self._over = over
        self._stall_s = stall_s
        self._clock = clock
        self._open: dict[str, Ticket] = {}
        self._over_since: dict[str, float] = {}
        self._restarts = 1
        self._beaten = clock()
        self._patience = stall_s
        self._closing = threading.Event()
        self._thread = self._new_thread()
        self._looking = threading.Thread(target=self._look_on, name="watch", daemon=True)

    # -- any thread -------------------------------------------------------------------------

    def start(self) -> None:
        """Start both threads."""
        self.beat()
        self._thread.start()
        self._looking.start()

    def accept(self, ticket: Ticket) -> None:
        """Watch over a ticket until its future has ended."""
        self._open[ticket.id] = ticket
        id = ticket.id  # not the ticket: its future would hold it for ever
        ticket.future.add_done_callback(lambda _: self._open.pop(id, None))

    def refuse(self, ticket: Ticket) -> None:
        """Forget a ticket that was refused after all."""
        self._open.pop(ticket.id, None)

    @property
    def open(self) -> int:
        """Return the number of accepted requests that have not ended."""
        return len(self._open)

    @property
    def alive(self) -> bool:
        """Return whether both threads live, and the engine's does not stand still."""
        threads = self._thread.is_alive() and self._looking.is_alive()
        return self._closing.is_set() or (threads and not self._stands_still)

    def close(self, wait_s: float, why: StableDiffusionError) -> None:
        """Wait for the engine's thread, which was asked to return; end what it has left open."""
        self._closing.set()
        for thread in (self._thread, self._looking):
            if thread.is_alive():
                thread.join(wait_s)
        self._end_all(why)

    # -- the engine's thread ----------------------------------------------------------------

    def beat(self, expected_s: float = 0.0) -> None:
        """Report that the thread goes on, with work that should take so many seconds."""
        self._patience = max(self._stall_s, SLOWER * expected_s)
        self._beaten = self._clock()

    # -- the watch's thread -----------------------------------------------------------------

    def _look_on(self) -> None:
        while not self._closing.wait(LOOK_S):
            try:
                self.look()
            except Exception:  # memory is short, perhaps: the next look may succeed
                logger.exception("the watch failed; it looks again")

    def look(self) -> None:
        """Look once: end late requests, and all of them where their thread has died or hangs."""
        self._end_late()
        if not self._thread.is_alive():
            self._end_all(EngineFailed(DIED))
            self._restart()
        elif self._stands_still and self._end_all(EngineFailed(STANDS_STILL)):
            logger.error("the engine's thread stands still")

    @property
    def _stands_still(self) -> bool:
        return self._clock() - self._beaten > self._patience

    def _end_late(self) -> None:
        """End the requests that the engine's thread has left open after their time was over."""
        now, since = self._clock(), self._over_since
        self._over_since = {}
        for ticket in list(self._open.values()):
            if error := self._over(ticket):
                first = self._over_since[ticket.id] = since.get(ticket.id, now)
                if now - first >= LATE_S:
                    settle(ticket, error)

    def _end_all(self, error: StableDiffusionError) -> int:
        """End all requests with this error. Return how many there were."""
        left = list(self._open.values())
        for ticket in left:
            settle(ticket, error)
        return len(left)

    def _restart(self) -> None:
        if not self._restarts or not self._safe():
            return
        self._restarts -= 1
        logger.error("the engine's thread has died; it is started again, once")
        self._forget()
        self.beat()
        self._thread = self._new_thread()
        self._thread.start()

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="engine", daemon=True)


@contextmanager
def spared(what: str) -> Iterator[None]:
    """Log an error in something that no request needs, so that it ends none."""
    try:
        yield
    except Exception:
        logger.exception("%s failed", what)


def computes(device: torch.device) -> bool:
    """Return whether a device still computes. After some errors a GPU does not until a restart."""
    try:
        return bool(torch.ones(2, device=device).sum().item() == 2)
    except Exception:
        logger.exception("the device %s does not compute any more", device)
        return False
