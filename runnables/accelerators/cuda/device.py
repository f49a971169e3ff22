"""This module runs models on an NVIDIA GPU, in fp32, fp16 or bf16."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from runnables.accelerators.base import DTYPES, Accelerator, Mark, T
from runnables.accelerators.cuda.graph import CudaGraph
from runnables.accelerators.graphs import Graphs
from runnables.accelerators.placement import place, working_bytes
from runnables.accelerators.precision import dtype_of
from runnables.accelerators.streaming import move
from runnables.errors import ConfigurationError
from runnables.families.base import Conditioning, Family

if TYPE_CHECKING:
    from runnables.settings import Settings


logger = logging.getLogger(__name__)


class EventMark(Mark):
    """This mark is a CUDA event on the current stream; waiting for it leaves the core to others."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True, blocking=True)
        self._event.record()

    def passed(self) -> bool:
        return bool(self._event.query())

    def wait(self) -> None:
        self._event.synchronize()

    def precede(self, stream: torch.cuda.Stream) -> None:
        """Let a stream's later work wait for the mark."""
        stream.wait_event(self._event)

    def seconds_since(self, earlier: Self) -> float:
        return float(earlier._event.elapsed_time(self._event)) / 1000


class Cuda(Accelerator):
    """The GPU uses PyTorch's SDPA attention, and channels_last for its tensor cores."""

    efficient_rows = 32

    def __init__(self, settings: Settings) -> None:
        if not torch.cuda.is_available():
            raise ConfigurationError(
                "SD_DEVICE=cuda, but PyTorch sees no CUDA device: check the driver and "
                "`docker run --gpus`, or set SD_DEVICE=cpu",
                loc=("SD_DEVICE",),
            )
        dtype = DTYPES.get(settings.precision, torch.float16)
        super().__init__(torch.device("cuda"), dtype, settings)
        self._graphs: Graphs | None = None
        if settings.cuda_graphs_mb:
            self._graphs = Graphs(CudaGraph, settings.cuda_graphs_mb * 1e6)
        self._side = torch.cuda.Stream()  # of the thread that decodes
        self._moving: set[int] = set()  # models whose weights come to the device at every call
        self.static = settings.compile == "full"
        if self.static or self._graphs is not None:  # these want few batch sizes
            self.buckets = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)

    @classmethod
    def present(cls) -> bool:
        return torch.cuda.is_available()

    def dtype_of(self, family: str) -> torch.dtype:
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return dtype_of(self.settings.precision, family, ("fp16", "bf16") if bf16 else ("fp16",))

    def prepare(self, family: Family) -> None:
        streamed = self.place(family)
        move(family, self.device, streamed)
        if self.dtype == torch.float32:
            torch.backends.cuda.matmul.allow_tf32 = False  # parity before speed in fp32
            torch.backends.cudnn.allow_tf32 = False
        if streamed:  # what follows would undo their hooks
            self._moving.add(family.number)
            return
        if family.denoiser_name == "unet":  # a transformer has no convolutions to speak of
            family.denoiser.to(memory_format=torch.channels_last)
        family.vae.to(memory_format=torch.channels_last)
        if self.settings.compile == "regional":
            self.compile_blocks(family)
        elif self.settings.compile == "full":
            torch._dynamo.config.recompile_limit = 256  # each size has a call per bucket of rows
            family.denoiser.compile(mode="max-autotune-no-cudagraphs", dynamic=False)

    def place(self, family: Family) -> tuple[str, ...]:
        placement = place(
            family.checkpoint.sizes,
            working_bytes(*family.traits.native_size, family.vae.dtype.itemsize),
            self.free_bytes(),
        )
        logger.info("%s: %s", family.checkpoint.name, placement)
        return placement.streamed

    def denoise(
        self, family: Family, sample: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        if self._graphs is None or family.number in self._moving:
            return super().denoise(family, sample, timesteps, conditioning)
        return self._graphs.denoise(family, sample, timesteps, conditioning)

    def decodes_beside(self, family: Family) -> bool:
        return family.number not in self._moving  # their hooks know one thread only

    @contextmanager
    def beside(self, after: Mark) -> Iterator[None]:
        assert isinstance(after, EventMark)
        with super().beside(after), torch.cuda.stream(self._side):
            after.precede(self._side)
            yield

    def adopt(self, module: nn.Module, size: tuple[int, int]) -> None:
        super().adopt(module, size)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def free_bytes(self) -> float:
        graphs = 0 if self._graphs is None else self._graphs.nbytes  # no other call can use it
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated() - graphs
        return float(torch.cuda.mem_get_info(self.device)[0] + max(0, unused))

    def measure(self, call: Callable[[], T]) -> tuple[T, float]:
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        result = call()
        return result, float(torch.cuda.max_memory_allocated(self.device) - before)

    def mark(self) -> EventMark:
        return EventMark()

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def free_memory(self) -> None:
        super().free_memory()
        if self._graphs is not None:
            self._graphs.clear()
        torch.cuda.empty_cache()
