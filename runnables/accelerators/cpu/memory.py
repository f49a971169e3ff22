"""This module says how much memory the system, or the container's limit, leaves."""

from __future__ import annotations

import math
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
#: of version 2 and 1: files of limit, use and statistics, and the names of three of the latter
VERSIONS = (
    (
        ("memory.max", "memory.current", "memory.stat"),
        ("inactive_file", "active_file", "file_mapped"),
    ),
    (
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
        ("total_inactive_file", "total_active_file", "total_mapped_file"),
    ),
)


def free_bytes() -> float:
    """Return the bytes that the system, or the container's limit, leaves; infinite if unknown."""
    return min(figure(MEMINFO, "MemAvailable") * 1024 or math.inf, _left_by_limit())


def figure(report: Path, name: str) -> float:
    """Return the number behind a name in one of Linux's reports; 0 where there is none."""
    lines = report.read_text().splitlines() if report.exists() else []
    return next(
        (float(line.split()[1]) for line in lines if line.split()[0] in (name, name + ":")), 0.0
    )


def _left_by_limit() -> float:
    """Return the bytes that the control group's limit leaves.

    The group's use counts files that were read, such as a model's. The kernel drops them when
    memory is needed, so they are free, except those that are mapped: weights in use lie there.
    """
    for files, names in VERSIONS:
        limit, used, report = (CGROUP / file for file in files)
        if limit.exists():
            inactive, active, mapped = (figure(report, name) for name in names)
            return _number(limit) - _number(used) + max(0.0, inactive + active - mapped)
    return math.inf


def _number(path: Path) -> float:
    text = path.read_text().strip()
    return math.inf if text == "max" else float(text)
