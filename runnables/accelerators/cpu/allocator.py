"""This module sets glibc's malloc to keep the memory that a step has freed.

A step allocates and frees activations of some megabytes again and again. By default glibc gives
such blocks back to the kernel and takes them again, zeroed page by page, for every layer. That
costs thousands of page faults per step, a tenth of its time at 32 rows. Here the same pages serve
every step.
"""

from __future__ import annotations

import ctypes
import sys

# malloc.h's names; the values are mallopt(3)'s
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
MIB = 1 << 20


def give_back_freed_memory() -> None:
    """Give the kernel what is free now, as after a model was unloaded."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)


def keep_freed_memory() -> bool:
    """Serve large blocks from one heap that does not shrink; return whether the C library does so.

    One heap for all threads, because the others end at 64 MiB and then fall back to the kernel.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    wanted = {
        M_ARENA_MAX: 1,
        M_MMAP_THRESHOLD: 1024 * MIB,
        M_TRIM_THRESHOLD: 2**31 - 1,
        M_TOP_PAD: 64 * MIB,
    }
    return mallopt is not None and all(mallopt(name, value) for name, value in wanted.items())
