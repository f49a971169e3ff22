"""Python's garbage collector is kept out of a start, and of the objects that the start has made.

Importing PyTorch and loading a model make half a million objects that all stay. By default the
collector looks through the growing heap a dozen times meanwhile, a tenth of the start's time; later
every full collection halts all threads, the engine's included, for 0.2 s to find nothing there.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = gc.get_threshold()
#: Whether a start has frozen its objects. `gc.get_freeze_count()` would walk along all of them.
_frozen = False
RARELY = (100_000, 50, 100)  # young objects often enough to free what imports throw away


def collect() -> None:
    """Collect everything that is garbage now, also what the start has made.

    Nothing is frozen again: a thread may still hold what is about to become garbage.
    """
    gc.unfreeze()
    gc.collect()


@contextmanager
def lasting() -> Iterator[None]:
    """Collect rarely inside; objects made inside the first one are never examined again."""
    global _frozen
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*THRESHOLDS)
        if not _frozen:  # later ones would freeze the garbage of earlier ones, too
            _frozen = True
            gc.freeze()
