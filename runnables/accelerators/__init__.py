"""The accelerators: one file or folder per kind of device, which `names` lists."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Any

from runnables.accelerators.names import ACCELERATORS

if TYPE_CHECKING:
    from runnables.accelerators.base import Accelerator
    from runnables.settings import Settings


def choose(settings: Settings) -> Accelerator:
    """Return the accelerator that SD_DEVICE names; `auto` takes the first whose device is there.

    Raises:
        ConfigurationError: the device is not there, or cannot run in SD_PRECISION.
    """
    kind = _kind(settings.device) if settings.device != "auto" else _first_present()
    accelerator: Accelerator = kind(settings)
    return accelerator


def _first_present() -> Any:
    return next(kind for kind in map(_kind, ACCELERATORS) if kind.present())


def _kind(name: str) -> Any:
    """Return the class of a kind of device, whose module is imported now and not before."""
    return pkgutil.resolve_name(ACCELERATORS[name])
