"""Drawing on the CPU: fp32 (parity with diffusers) or bf16 (where the CPU has AMX or AVX512)."""

from __future__ import annotations

import os

import torch

from runnables.accelerators.base import DTYPES, Accelerator
from runnables.errors import ConfigurationError
from runnables.pipelines.base import Pipeline
from runnables.settings import Settings


class Cpu(Accelerator):
    """fp16 is refused: PyTorch's CPU kernels for it are slow or missing."""

    efficient_rows = 2  # a large model gains little from batching here; a small one gains much

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

    def row_limit(self, latent_area: int) -> int:
        # Measured on 2 cores: a 16x16 latent keeps gaining up to 32 rows, a 64x64 one barely at 2.
        return min(super().row_limit(latent_area), 32) if not self.settings.max_batch else (
            self.settings.max_batch
        )


def _cores() -> int:
    """Cores this process may use (a container's limit shows here, not in os.cpu_count)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
