"""The number format of a model on a GPU is chosen here, by its family."""

from __future__ import annotations

from collections.abc import Collection

import torch

from runnables.accelerators.base import DTYPES
from runnables.checkpoints.families import FAMILIES
from runnables.errors import ConfigurationError


def dtype_of(precision: str, family: str, native: Collection[str]) -> torch.dtype:
    """Return what SD_PRECISION means for a family.

    Args:
        precision: the setting; "auto" is the first 16-bit format of the family that is native, else
            its first one, which PyTorch then emulates.
        native: the 16-bit formats that the device computes in.

    Raises:
        ConfigurationError: the family's models overflow in this format.
    """
    halves = FAMILIES[family].halves
    if precision == "auto":
        precision = next((one for one in halves if one in native), halves[0])
    elif precision == "fp16" and precision not in halves:
        raise ConfigurationError(
            f"{family} models overflow in fp16: use SD_PRECISION=auto, which is {halves[0]} here",
            loc=("SD_PRECISION",),
        )
    return DTYPES[precision]
