"""Several benchmarks take these figures."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
R = TypeVar("R")


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def closed(call: Callable[[T], R], requests: Sequence[T], clients: int) -> tuple[list[R], float]:
    """Return the answers to clients who each wait for their last one, and the seconds of all."""
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(call, requests)), time.perf_counter() - started


def psnr(difference: np.ndarray[Any, Any]) -> float:
    """Return the PSNR in dB of values of 0 to 255 that differ so; infinite where none does."""
    square = float(np.mean(difference**2))
    return 10 * math.log10(255**2 / square) if square else math.inf


def spread(ratios: Sequence[float]) -> str:
    """Return the median, and the range where there are several."""
    median = f"{statistics.median(ratios):.2f}"
    if len(ratios) == 1:
        return median
    return f"{median} ({min(ratios):.2f} to {max(ratios):.2f})"
