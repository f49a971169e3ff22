"""Finds out whether a file lies on a network or FUSE mount, like EFS or Mountpoint for Amazon S3.

Weights that are mapped into memory are read there by pages, each by a request of its own, which
takes many times as long as reading the file from its beginning to its end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

MOUNTS = Path("/proc/mounts")
#: file systems whose pages come over a network, as Linux names them; those in FUSE start with it
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "9p")


def reading(path: Path) -> dict[str, Any]:
    """Return how diffusers and transformers are to read weights that lie here."""
    return {"disable_mmap": True} if is_slow_to_map(path) else {}


def is_slow_to_map(path: Path, mounts: Path = MOUNTS) -> bool:
    """Return whether the innermost mount of this path is such a one; False where none is listed."""
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
    return found[1].startswith("fuse") or found[1] in NETWORK
