"""The limits of one API key: requests in any minute, and requests at a time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runnables.errors import OverCapacity

WINDOW_S = 60.0


class Limit:
    """One key's limits. They belong to one event loop and are not thread-safe.

    Args:
        rate: The most requests in any 60 seconds; None means no limit.
        concurrency: The most requests at a time; None means no limit.
        clock: A clock in seconds that never goes back.
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
        self._occupied = 0

    def spend(self) -> None:
        """Count a request; one that is refused does not count.

        Raises:
            OverCapacity: The limit is reached; the error has the seconds to wait.
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
    def occupied(self) -> Iterator[None]:
        """Occupy one of the places for as long as the block runs.

        Raises:
            OverCapacity: All places are taken.
        """
        if self.concurrency is not None and self._occupied >= self.concurrency:
            raise OverCapacity(f"this key may have {self.concurrency} requests at a time")
        self._occupied += 1
        try:
            yield
        finally:
            self._occupied -= 1
