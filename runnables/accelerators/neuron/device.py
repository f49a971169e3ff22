"""This module generates on AWS Inferentia2 (and Trainium), with models compiled by optimum-neuron.

Tensors between the compiled parts live on the CPU, as optimum-neuron's do.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from runnables.accelerators.base import Accelerator
from runnables.errors import ConfigurationError

if TYPE_CHECKING:
    from runnables.checkpoints.checkpoint import Checkpoint
    from runnables.families.base import Family
    from runnables.settings import Settings

logger = logging.getLogger(__name__)

CORES = "NEURON_RT_VISIBLE_CORES"


class Neuron(Accelerator):
    """Every denoiser call has the compiled number of rows, because the engine pads it."""

    static = True

    def __init__(self, settings: Settings) -> None:
        if settings.precision != "auto":
            logger.warning(
                "SD_PRECISION=%s: on Neuron the compiler's --cast says", settings.precision
            )
        if settings.refiner:
            raise ConfigurationError("SD_REFINER is not supported on Neuron", loc=("SD_REFINER",))
        if importlib.util.find_spec("torch_neuronx") is None:
            raise ConfigurationError(
                "SD_DEVICE=neuron, but torch_neuronx is not installed: use the Neuron image of "
                "bentofile.neuron.yaml",
                loc=("SD_DEVICE",),
            )
        if CORES in os.environ:
            os.environ[CORES] = as_range(os.environ[CORES])
        super().__init__(torch.device("cpu"), torch.float32, settings)

    @classmethod
    def present(cls) -> bool:
        return Path("/dev/neuron0").exists()

    def load(self, source: str, config: str | None) -> Checkpoint:
        from runnables.accelerators.neuron.compiled import load_compiled

        return load_compiled(source)

    def prepare(self, family: Family) -> None:
        """Do nothing, because the parts are on the device since they were loaded."""
        compiled = family.checkpoint.compiled
        assert compiled is not None
        self.buckets = (compiled.rows,)

    def row_limit(self, latent_area: int) -> int:
        return self.buckets[0]


def as_range(cores: str) -> str:
    """Turn "4,5" as Ray sets it into "4-5" as the Neuron runtime and optimum-neuron read it.

    Raises:
        ConfigurationError: the cores are not numbers, or not next to each other.
    """
    try:
        numbers = sorted(int(core) for core in cores.replace("-", ",").split(","))
    except ValueError as error:
        raise ConfigurationError(f"{CORES}={cores} is not a range", loc=(CORES,)) from error
    first, last = numbers[0], numbers[-1]
    if "-" not in cores and numbers != list(range(first, last + 1)):
        raise ConfigurationError(f"{CORES}={cores} leaves out cores between", loc=(CORES,))
    return str(first) if first == last else f"{first}-{last}"
