"""The accelerators are listed here, one line per kind of device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runnables.accelerators.base import Accelerator
    from runnables.settings import Settings


def _cpu(settings: Settings) -> Accelerator:
    from runnables.accelerators.cpu.device import Cpu

    return Cpu(settings)


def _cuda(settings: Settings) -> Accelerator:
    from runnables.accelerators.cuda.device import Cuda

    return Cuda(settings)


def _neuron(settings: Settings) -> Accelerator:
    from runnables.accelerators.neuron.device import Neuron

    return Neuron(settings)


ACCELERATORS: dict[str, Callable[[Settings], Accelerator]] = {
    "cpu": _cpu,
    "cuda": _cuda,
    "neuron": _neuron,
}


def choose(settings: Settings) -> Accelerator:
    """Return the accelerator that SD_DEVICE names; `auto` tries CUDA, then Neuron, then the CPU.

    Raises:
        ConfigurationError: the device is not there, or cannot run in SD_PRECISION.
    """
    import torch

    from runnables.errors import ConfigurationError

    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "neuron" if _has_neuron() else "cpu"
    if name not in ACCELERATORS:
        raise ConfigurationError(
            f"SD_DEVICE={name} is not supported here; known: {', '.join(ACCELERATORS)}",
            loc=("SD_DEVICE",),
        )
    return ACCELERATORS[name](settings)


def _has_neuron() -> bool:
    return Path("/dev/neuron0").exists()
