"""This module has oneDNN keep what it has compiled for the shapes of earlier calls.

oneDNN compiles a kernel for each layer and each number of rows, and keeps 1024 of them by default.
Rows of several sizes come in more shapes than that. Then every call compiles again: of a call with
4 rows in bf16 that took most of the time.
"""

from __future__ import annotations

import os

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
KERNELS = 4096  # in bf16 some 170 kB each with the embedded model, in float32 almost nothing


def keep_kernels() -> None:
    """Raise the limit, where the environment sets none. It counts from oneDNN's first call on."""
    os.environ.setdefault(CAPACITY, str(KERNELS))
