"""This class says what the engine needs of a device; each kind of device has a subclass.

A new kind is one file and its line in `names`. Its class is made with the settings alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

import torch
from torch import Tensor, nn

from runnables.accelerators.streaming import move

if TYPE_CHECKING:
    from runnables.checkpoints.checkpoint import Checkpoint
    from runnables.families.base import Conditioning, Family
    from runnables.settings import Settings

T = TypeVar("T")
T5 = ("text_encoder_3", "tokenizer_3")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Mark:
    """A mark is a place in the device's queue of work; here, where calls return finished, now."""

    def __init__(self) -> None:
        self._time = time.perf_counter()

    def passed(self) -> bool:
        """Return whether all work before the mark is done."""
        return True

    def wait(self) -> None:
        """Wait until all work before the mark is done."""

    def seconds_since(self, earlier: Self) -> float:
        """Return the device's seconds from an earlier mark to this one; both have passed."""
        return self._time - earlier._time


class Accelerator:
    """An accelerator is a device with a number format and a limit on what one step may hold.

    Attributes:
        dtype: the number format, where the model's family has no say in it.
        freeing: called before memory is given back: whoever keeps something there lets go of it.
    """

    #: denoiser rows a call is padded to; empty: any number
    buckets: tuple[int, ...] = ()
    #: whether the denoiser runs at the shapes alone that it was compiled for
    static = False
    #: whether rows of different sizes and prompt lengths may share a denoiser call
    mixes_sizes = False
    #: denoiser rows beyond which a larger batch no longer pays, at 64x64 latents; scaled by area
    efficient_rows = 16
    #: denoiser rows a step holds at most, however small they are
    most_rows = 64

    def __init__(self, device: torch.device, dtype: torch.dtype, settings: Settings) -> None:
        self.device = device
        self.dtype = dtype
        self.settings = settings
        self.freeing: Callable[[], None] = lambda: None

    @classmethod
    def present(cls) -> bool:
        """Return whether this machine has such a device, so that SD_DEVICE=auto may take it."""
        return True

    def load(self, source: str, config: str | None) -> Checkpoint:
        """Return the model that a setting names, in this device's number format, on the CPU.

        Raises:
            ConfigurationError: saying what is missing, damaged or not supported.
        """
        from runnables.checkpoints.loading import load

        left_out = () if self.settings.t5 else T5
        quantized = self.settings.quantized
        return load(
            source, dtype=self.dtype_of, config=config, left_out=left_out, quantized=quantized
        )

    def dtype_of(self, family: str) -> torch.dtype:
        """Return the number format of models of this family.

        Raises:
            ConfigurationError: they do not run in SD_PRECISION.
        """
        return self.dtype

    def prepare(self, family: Family) -> None:
        """Move the modules to the device and make the denoiser fast there, once, before serving."""
        move(family, self.device, self.place(family))

    def place(self, family: Family) -> tuple[str, ...]:
        """Return the components that stay in main memory; none where the device has no other.

        Raises:
            ConfigurationError: the model does not fit, with the GiB that are missing.
        """
        return ()

    @contextmanager
    def warming_up(self) -> Iterator[None]:
        """Return the context of a model's first calls, of which the next ones will be many."""
        yield

    def adopt(self, module: nn.Module, size: tuple[int, int]) -> None:
        """Move a module that is run beside the denoiser to the device, and make it fast there.

        Args:
            size: (height, width) of most of its inputs.
        """
        module.to(self.device)

    def compile_blocks(self, family: Family) -> None:
        """Compile the denoiser's repeated blocks once, for all sizes and numbers of rows."""
        torch._dynamo.config.recompile_limit = 64  # one UNet has blocks of several widths
        family.denoiser.compile_repeated_blocks(fullgraph=True, dynamic=True)

    def denoise(
        self, family: Family, sample: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """Run a denoiser call in which no extension acts; arguments as `Family.denoise`."""
        return family.denoise(sample, timesteps, conditioning)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Return the context that the engine's thread holds for as long as it runs."""
        with torch.inference_mode():
            yield

    def decodes_beside(self, family: Family) -> bool:
        """Return whether another thread decodes this model's images while steps go on."""
        return False

    @contextmanager
    def beside(self, after: Mark) -> Iterator[None]:
        """Return the context of that thread, whose work waits for a mark and for nothing else."""
        with torch.inference_mode():
            yield

    def before_step(self) -> None:
        """Prepare the engine's thread for a step, for example to the cores that are free."""

    def row_limit(self, latent_area: int) -> int:
        """Return how many rows a step may hold for latents of this area (h x w), at least 2."""
        if self.settings.max_batch:
            return self.settings.max_batch
        return min(max(2, round(self.efficient_rows * 64 * 64 / latent_area)), self.most_rows)

    def decode_limit(self, latent_area: int) -> int:
        """Return how many images are decoded in one call; the VAE's activations are the largest."""
        return max(1, round(4 * 64 * 64 / latent_area))

    def pad(self, rows: int) -> int:
        """Return the bucket for this many denoiser rows."""
        return next((bucket for bucket in self.buckets if bucket >= rows), rows)

    def free_bytes(self) -> float:
        """Return the bytes that calls may use beside what is loaded; infinite if unknown."""
        return math.inf

    def measure(self, call: Callable[[], T]) -> tuple[T, float]:
        """Return what `call` returns, and the bytes it held at its peak; 0 if unknown."""
        return call(), 0.0

    def mark(self) -> Mark:
        """Return a mark behind all work that the device was given."""
        return Mark()

    def synchronize(self) -> None:
        """Wait for the device, where its work is asynchronous."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return whether the device ran out of memory, so that a smaller batch may succeed."""
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        words = ("not enough memory", "can't allocate memory")  # PyTorch's on the CPU
        return isinstance(error, RuntimeError) and any(word in str(error) for word in words)

    def free_memory(self) -> None:
        """Give cached memory back after a failure."""
        self.freeing()
