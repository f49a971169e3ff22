"""Gives back the memory of weights that were read for the last time.

Weights are mapped into memory: the kernel reads a page of the file when it is first used. Such
pages count as this process's memory until the whole file is unmapped, so until none of its weights
is used any more.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

from torch import Tensor

MAPS = Path("/proc/self/maps")


def files() -> list[range]:
    """Return the addresses at which files are mapped now; none where Linux does not list them."""
    try:
        lines = MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return []
    places = (
        fields[0].split("-") for line in lines if "/" in (fields := line.split(maxsplit=5))[-1]
    )
    return [range(int(first, 16), int(end, 16)) for first, end in places]


def give_back(weight: Tensor, mapped: list[range]) -> None:
    """Give back the pages that have nothing but this weight, where a file is mapped there.

    The weight keeps its values: whoever uses it again reads them from the file.
    """
    page, first = mmap.PAGESIZE, weight.data_ptr()
    start, end = -(-first // page) * page, (first + weight.nbytes) // page * page
    if start < end and any(start in file and end - 1 in file for file in mapped):
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
