"""This module keeps PyTorch's threads at the cores that this process really gets.

PyTorch's threads wait for each other in every operation, and they wait by spinning. Where another
program holds one of the cores, each operation then lasts until the system gives the core back: two
services on two cores took 31 times as long for an image as with one thread each.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch

WINDOW_S = 0.1  # the system counts the time of cores in hundredths of a second
RECENT_S = 1.0  # whose busiest window counts: another service pauses between two of its images
CGROUP = Path("/sys/fs/cgroup")


class Threads:
    """The number of threads of the thread that calls `adapt`.

    Args:
        most: threads where no other program is busy.
        others: a function that returns the core seconds that other programs have used so far.
        clock: a function that returns seconds.
    """

    def __init__(
        self,
        most: int,
        others: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._others = others
        self._clock = clock
        self._since = clock()
        self._used = others()
        self._free: deque[tuple[float, int]] = deque()  # when, cores

    def adapt(self) -> None:
        """Choose the number of threads by what other programs used in the last second.

        One thread too many costs much more than one too few, so that the number falls at once.
        """
        seconds = self._clock() - self._since
        if seconds < WINDOW_S:
            return
        used = self._others()
        free = self._most - (used - self._used) / seconds
        self._since, self._used = self._clock(), used
        self._free.append((self._since, min(self._most, max(1, math.floor(free + 0.5)))))
        while self._free[0][0] < self._since - RECENT_S:
            self._free.popleft()
        wanted = min(cores for _, cores in self._free)
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity and its container's quota count."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    return max(1, math.floor(min(cores, _quota())))


def others_seconds() -> float:
    """Return the core seconds that other programs have used on the cores of this process.

    The time of this process counts as its own wherever it ran.
    """
    import psutil  # a benchmark on a GPU runs without it

    times = psutil.cpu_times(percpu=True)
    cores = psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else None
    chosen = [times[core] for core in cores or range(len(times)) if core < len(times)]
    busy = sum(one.user + one.nice + one.system + getattr(one, "steal", 0.0) for one in chosen)
    return float(busy) - time.process_time()


def _quota() -> float:
    """Return the cores' worth of time that the control group allows; infinity without a limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        files = [CGROUP / name for name in names]
        if all(file.exists() for file in files):
            quota, period = " ".join(file.read_text() for file in files).split()[:2]
            return int(quota) / int(period) if quota.isdigit() else math.inf
    return math.inf
