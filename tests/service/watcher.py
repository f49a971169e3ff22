"""`python -m tests.service.watcher URL PID`: asks /livez 50 times a second until its input ends.

It prints as JSON the statuses, the slowest answer, and the longest time that the event loop was
held, which is the larger of two figures that a busy machine does not make larger: the CPU time that
the loop's thread used before an answer, and the time until the answer without that in which a
thread of the service, or this process, could have run but had no core.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil

EVERY_S = 0.02
STEAL = 8  # the column of /proc/stat with the time that the machine itself had no core


def used(pid: int) -> float:
    """Return the seconds of CPU time of a process's first thread, where the event loop runs."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def waited(pid: int) -> float:
    """Return the seconds that the threads of a process have waited for a core."""
    total = 0.0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[1]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended
    return total


def without_core(pids: list[int]) -> float:
    """Return the seconds in which these processes could not run though they had something to do."""
    stolen = int(Path("/proc/stat").read_text().split()[STEAL]) / 100
    return stolen + sum(map(waited, pids))


def watch(url: str, pid: int, ended: threading.Event) -> dict[str, object]:
    """Return the statuses, the slowest answer, and how long the loop was held at most."""
    servers = [pid, *(one.pid for one in psutil.Process(pid).children(recursive=True))]
    pids = [psutil.Process().pid, *servers]
    statuses: set[int] = set()
    slowest = longest = 0.0
    with httpx.Client(timeout=300) as client:
        while not ended.wait(EVERY_S):
            before, started = without_core(pids), time.perf_counter()
            loops = [used(one) for one in servers]
            statuses.add(client.get(f"{url}/livez").status_code)
            seconds = time.perf_counter() - started
            slowest = max(slowest, seconds)
            worked = [used(one) - loop for one, loop in zip(servers, loops, strict=True)]
            longest = max(longest, *worked, seconds - (without_core(pids) - before))
    return {"statuses": sorted(statuses), "slowest_s": slowest, "held_s": longest}


if __name__ == "__main__":
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    print(json.dumps(watch(sys.argv[1], int(sys.argv[2]), stop)))
