"""Drawing on the CPU: fp32 (parity with diffusers) or bf16 (where the CPU has AMX or AVX512)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from runnables.accelerators.base import DTYPES, Accelerator
from runnables.errors import ConfigurationError
from runnables.pipelines.base import Pipeline

if TYPE_CHECKING:
    from runnables.settings import Settings


class Cpu(Accelerator):
    """fp16 is refused: PyTorch's CPU kernels for it are slow or missing."""

    # Measured on 2 cores: latents of 64x64 barely gain from a second row, of 16x16 up to 32 rows.
    efficient_rows = 2
    most_rows = 32

    def __init__(self, settings: Settings) -> None:
        if settings.precision == "fp16":
            raise ConfigurationError(
                "SD_PRECISION=fp16 needs a GPU: on the CPU half precision is slower than fp32; "
                "use fp32, or bf16 where the CPU supports it",
                loc=("SD_PRECISION",),
            )
        dtype = DTYPES.get(settings.precision, torch.float32)
        super().__init__(torch.device("cpu"), dtype, settings)

    def prepare(self, pipeline: Pipeline) -> None:
        torch.set_num_threads(self.settings.threads or _cores())
        super().prepare(pipeline)


def _cores() -> int:
    """Cores this process may use (a container's limit shows here, not in os.cpu_count)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
