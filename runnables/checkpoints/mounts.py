"""Finds out whether a file lies on a FUSE mount, like Mountpoint for Amazon S3.

Weights that are mapped into memory are read there page by page, each by a request of its own, which
takes many times as long as reading the file from its beginning to its end.
"""

from __future__ import annotations

from pathlib import Path

MOUNTS = Path("/proc/mounts")


def is_fuse(path: Path, mounts: Path = MOUNTS) -> bool:
    """Return whether the innermost mount that holds this path is one; False where none is told."""
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return False
    real, found = path.resolve(), (0, "")
    for line in lines:
        _, place, kind, *_ = line.split()
        point = Path(place.replace(r"\040", " "))
        if real.is_relative_to(point):
            found = max(found, (len(point.parts), kind))
    return found[1].startswith("fuse")
