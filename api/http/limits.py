"""How much one API key may ask for: requests in any minute, and requests at a time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runnables.errors import OverCapacity

WINDOW_S = 60.0


class Limit:
    """One key's limits. For one event loop: not thread-safe.

    Args:
        rate: requests in any 60 seconds at most; None: no limit.
        concurrency: requests at a time at most; None: no limit.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        rate: int | None,
        concurrency: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate = rate
        self.concurrency = concurrency
        self._clock = clock
        self._times: deque[float] = deque()
        self._held = 0

    def spend(self) -> None:
        """Count a request; one that is refused does not count.

        Raises:
            OverCapacity: with the seconds until the next one is let in.
        """
        if self.rate is None:
            return
        now = self._clock()
        while self._times and self._times[0] <= now - WINDOW_S:
            self._times.popleft()
        if len(self._times) >= self.rate:
            wait = self._times[0] + WINDOW_S - now
            raise OverCapacity(
                f"this key may make {self.rate} requests a minute", retry_after=math.ceil(wait)
            )
        self._times.append(now)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Occupy one of the places for as long as the block runs.

        Raises:
            OverCapacity: all are taken.
        """
        if self.concurrency is not None and self._held >= self.concurrency:
            raise OverCapacity(f"this key may have {self.concurrency} requests at a time")
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
