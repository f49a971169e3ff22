"""Images are decoded and previewed beside the steps, by another thread, where the device can.

On a GPU this thread has a stream of its own, so a step never waits for the VAE. It has two calls at
a time, so that the engine's thread decides late which images are next. Whatever fails here is
decoded again on that thread, which knows what to do about it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import NamedTuple

from runnables.accelerators.base import Accelerator, Mark, T
from runnables.engine.decode import Pixels, decode_call
from runnables.engine.row import Row
from runnables.families.base import Family

logger = logging.getLogger(__name__)

AT_ONCE = 2  # calls that the thread has: the one that runs, and the next


class Decoded(NamedTuple):
    """These rows were decoded in one call; `pixels` is None where that failed."""

    rows: list[Row]
    pixels: list[Pixels] | None
    seconds: float


class Beside:
    """This class owns the thread that decodes.

    Attributes:
        vae: held for a decode: memory is planned for one at a time.

    Args:
        wake: called when something is decoded.
    """

    def __init__(self, accelerator: Accelerator, wake: Callable[[], None]) -> None:
        self.vae = threading.Lock()
        self._accelerator = accelerator
        self._wake = wake
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._begun: list[list[Row]] = []
        self._decoded: SimpleQueue[Decoded] = SimpleQueue()

    # -- the engine's thread ----------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Return whether the thread takes another call."""
        return len(self._begun) < AT_ONCE

    @property
    def rows(self) -> list[Row]:
        """Return the rows that it has."""
        return [row for rows in self._begun for row in rows]

    def begin(self, rows: list[Row]) -> None:
        """Have rows of one size and model decoded in one call."""
        self._begun.append(rows)
        self._thread.submit(self._decode, rows, self._accelerator.mark())

    def decoded(self) -> Iterator[Decoded]:
        """Return what is decoded by now."""
        while True:
            try:
                decoded = self._decoded.get_nowait()
            except Empty:
                return
            self._begun.remove(decoded.rows)
            yield decoded

    def make(self, family: Family, call: Callable[[], T]) -> Future[T]:
        """Have something made of what the device has now; at once where the steps wait anyway."""
        if self._accelerator.decodes_beside(family):
            return self._thread.submit(self._make, call, self._accelerator.mark())
        made: Future[T] = Future()
        made.set_result(call())
        return made

    # -- other threads ----------------------------------------------------------------------

    def close(self) -> None:
        """End the thread after its call."""
        self._thread.shutdown(cancel_futures=True)

    def _make(self, call: Callable[[], T], mark: Mark) -> T:
        with self._accelerator.beside(mark):
            return call()

    def _decode(self, rows: list[Row], mark: Mark) -> None:
        pixels, started = None, time.perf_counter()
        try:
            with self.vae, self._accelerator.beside(mark):
                pixels = decode_call(rows, again=False)
        except Exception:
            logger.warning("decoding beside the steps failed", exc_info=True)
        self._decoded.put(Decoded(rows, pixels, time.perf_counter() - started))
        self._wake()
