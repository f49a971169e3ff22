"""This module runs models on the CPU in fp32 (as diffusers) or bf16 (with AMX or AVX512)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from runnables.accelerators.base import DTYPES, Accelerator, T
from runnables.accelerators.cpu.allocator import give_back_freed_memory, keep_freed_memory
from runnables.accelerators.cpu.memory import figure, free_bytes
from runnables.accelerators.cpu.norms import contiguous_norms
from runnables.accelerators.cpu.packed import pack
from runnables.accelerators.cpu.positions import Layout, PositionsCall, Sizes, fits
from runnables.accelerators.cpu.primitives import keep_kernels
from runnables.accelerators.cpu.threads import Threads, others_seconds, usable_cores
from runnables.accelerators.cpu.trace import BUDGET, USES, Trace
from runnables.accelerators.cpu.winograd import transform
from runnables.accelerators.graphs import Graphs
from runnables.errors import ConfigurationError
from runnables.families.base import Conditioning, Family

if TYPE_CHECKING:
    from runnables.settings import Settings

STATUS = Path("/proc/self/status")
SPARE = 8  # a model's transformed weights take at most this part of the memory that is free


class Cpu(Accelerator):
    """The CPU refuses fp16, because PyTorch's kernels for it are slow or missing there."""

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
        if settings.compile == "full":
            raise ConfigurationError(
                "SD_COMPILE=full needs a GPU; use regional", loc=("SD_COMPILE",)
            )
        keep_kernels()
        dtype = DTYPES.get(settings.precision, torch.float32)
        super().__init__(torch.device("cpu"), dtype, settings)
        self.mixes_sizes = settings.compile == "off"
        self._traces: Graphs | None = None
        if settings.compile == "off" and "unet" not in settings.quantized:  # plain weights only
            self._traces = Graphs(Trace, BUDGET, uses=USES, any_rows=True)
        self._sizes = Sizes()
        self._layouts: WeakKeyDictionary[Conditioning, Layout] = WeakKeyDictionary()
        self._threads = None if settings.threads else Threads(usable_cores(), others_seconds)

    def prepare(self, family: Family) -> None:
        keep_freed_memory()
        torch.set_num_threads(self.settings.threads or usable_cores())
        super().prepare(family)
        if family.denoiser_name == "unet":  # a transformer has one convolution, others copy it
            pack(family.denoiser)
            if self._traces is not None:
                transform(family.denoiser, free_bytes() / SPARE)
                family.listed = fits(family.denoiser)
        pack(family.vae)
        if family.dtype is torch.bfloat16:
            contiguous_norms(family.denoiser)
            contiguous_norms(family.vae)
        if self.settings.compile == "regional":
            self.compile_blocks(family)

    def denoise(
        self, family: Family, sample: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        if self._traces is None or family.denoiser_name != "unet":  # for others Python is no cost
            return super().denoise(family, sample, timesteps, conditioning)
        canvas, size = conditioning.canvas, (sample.shape[2], sample.shape[3])
        multiple = family.traits.canvas_multiple
        if not family.listed or size[0] % multiple or size[1] % multiple:
            return self._traces.denoise(family, sample, timesteps, conditioning)
        layout = self._layouts.get(conditioning)
        if layout is None:
            rows = [size] * len(sample) if canvas is None else canvas.sizes
            layout = Layout(rows, self._sizes.lately(rows), conditioning)
            self._layouts[conditioning] = layout
        inputs = [*layout.listed(sample.to(family.dtype), timesteps), *layout.inputs]
        positions = self._traces.run(PositionsCall(family, layout.sizes), inputs)
        return layout.placed(positions, sample)

    @contextmanager
    def warming_up(self) -> Iterator[None]:
        if self._traces is None:
            yield
            return
        self._traces.uses = 1
        try:
            yield
        finally:
            self._traces.uses = USES

    def adopt(self, module: nn.Module, size: tuple[int, int]) -> None:
        super().adopt(module, size)
        pack(module)

    def before_step(self) -> None:
        if self._threads is not None:
            self._threads.adapt()

    def free_bytes(self) -> float:
        return free_bytes()

    def free_memory(self) -> None:
        super().free_memory()
        give_back_freed_memory()

    def measure(self, call: Callable[[], T]) -> tuple[T, float]:
        """Measure by the process's highest memory use, which earlier calls may have raised already.

        Linux sums it up from counters of each core that lag behind, so it may even fall a little.
        """
        before = figure(STATUS, "VmHWM")
        result = call()
        return result, max(0.0, figure(STATUS, "VmHWM") - before) * 1024
