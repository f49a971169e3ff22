"""Waiting until what was applied serves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

EVERY_S = 15.0
LIMIT = "BENTOCTL_WAIT_S"  # 0: do not wait


class Unready(RuntimeError):
    """Nothing serves within the time limit, or nothing ever will."""


def until(look: Callable[[], tuple[bool, str]], limit_s: float, *, pause: float = EVERY_S) -> None:
    """Call `look` until it says that it is done, and print its word whenever that changes.

    Args:
        limit_s: seconds; the environment's BENTOCTL_WAIT_S comes first.

    Raises:
        Unready: the time is over; the message has the last word.
    """
    limit = float(os.environ.get(LIMIT, limit_s))
    end, said = time.monotonic() + limit, ""
    while limit:
        done, word = look()
        if word != said:
            print(word, flush=True)
            said = word
        if done:
            return
        if time.monotonic() >= end:
            raise Unready(f"not ready after {limit:.0f} s; {word}")
        time.sleep(pause)
