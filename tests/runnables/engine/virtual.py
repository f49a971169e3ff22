"""The real engine on a virtual clock: what its device does is counted, in seconds, not measured.

The tests' thread is the engine's thread here. Every call of the model moves the clock on by what
the cost model says, so an order of events is the same on every machine, however busy it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from runnables.accelerators.base import Accelerator, Mark
from runnables.assembly import Models
from runnables.engine.cost import CostModel
from runnables.engine.engine import Engine
from runnables.engine.model_pool import ModelPool
from runnables.parameters import AnyParameters, Upscale
from runnables.settings import Settings
from runnables.ticket import ANYBODY, NOTHING, Caller, Inputs, Ticket

LIMIT = 16  # denoiser rows of a call
STEP_S, ROW_S = 0.013, 0.0046  # a call of n rows takes STEP_S + n * ROW_S: as measured on two cores
IMAGE_S = 0.020  # that the VAE takes for an image
PROMPT_S = 0.003  # and the text encoder for a prompt
LATENTS = 64  # latent positions of the tiny models' images


class Clock:
    """A clock that its owner moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class VirtualMark(Mark):
    def __init__(self, now: float) -> None:
        self._time = now


class Device(Accelerator):
    """This device's calls return at once, and move the clock on."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        super().__init__(torch.device("cpu"), torch.float32, settings)
        self._clock = clock

    def mark(self) -> Mark:
        return VirtualMark(self._clock())


class Inline(Executor):
    """An executor that works at once, in the caller's thread."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(call(*args, **kwargs))
        return done


class Tiles:
    """An upscaler, and the library that has it: every tile takes a second."""

    name, scale = "tiles", 2

    def __init__(self, clock: Clock, count: int) -> None:
        self._clock = clock
        self._count = count

    def get(self, name: str, loc: object) -> Tiles:
        return self

    def turns(self, size: tuple[int, int]) -> int:
        return self._count

    def enlarge(
        self, image: Image.Image, size: tuple[int, int]
    ) -> Generator[None, None, Image.Image]:
        for _ in range(self._count):
            self._clock.now += 1.0
            yield
        return image


class VirtualEngine:
    """The real engine with one model, and requests that arrive at virtual times."""

    def __init__(self, folder: Path, **settings: object) -> None:
        given = {"model": str(folder), "max_batch": LIMIT, "max_queue_s": 60.0, **settings}
        self.clock = Clock()
        device = Device(Settings(request_timeout_s=1e5, **given), self.clock)  # type: ignore[arg-type]
        self.model = Models(device.settings, device).read_first()
        rate, decode_rate = ROW_S / LATENTS, IMAGE_S / LATENTS
        self.model.cost = CostModel(STEP_S, rate, decode_rate, _observed=100)
        self.steps: list[tuple[float, float]] = []  # when each began and ended
        self._count()
        self.engine = Engine(ModelPool(self.model), device, clock=self.clock)
        self.engine._finish.images = Inline()
        self._coming: list[tuple[float, Callable[[], object]]] = []
        self.ended: dict[str, float] = {}

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something after so many seconds, between two turns."""
        self._coming.append((self.clock() + seconds, call))
        self._coming.sort(key=lambda one: one[0])

    def submit(
        self, parameters: AnyParameters, inputs: Inputs = NOTHING, caller: Caller = ANYBODY
    ) -> Ticket:
        ticket = Ticket(parameters, submitted=self.clock(), caller=caller)
        self.engine._admission.submit(ticket, inputs)
        ticket.future.add_done_callback(lambda _: self.ended.update({ticket.id: self.clock()}))
        return ticket

    def enlarge(self, seconds: int, caller: Caller) -> None:
        """Enlarge a picture for a caller, alone on the machine, in tiles of a second each."""
        self.model.upscalers = cast(Any, Tiles(self.clock, seconds))
        ticket = self.submit(Upscale(upscaler="tiles"), Inputs(Image.new("RGB", (8, 8))), caller)
        self.run(ticket.future.done)

    def latency(self, ticket: Ticket) -> float:
        return self.ended[ticket.id] - ticket.submitted

    def run(self, until: Callable[[], bool]) -> None:
        """Let the engine work until something is so."""
        engine = self.engine
        with torch.inference_mode():
            while not until():
                while self._coming and self._coming[0][0] <= self.clock():
                    self._coming.pop(0)[1]()
                if engine.active or engine.waiting:
                    engine._loop.turn()
                else:
                    self.clock.now = self._coming[0][0]

    def _count(self) -> None:
        """Replace what the model computes by the seconds that it takes."""
        family: Any = self.model.base
        clock, encode = self.clock, family.encode

        def denoise(sample: Tensor, timesteps: Tensor, conditioning: Any, **extra: Any) -> Tensor:
            begun = clock.now
            clock.now += self.model.cost.step(len(sample), sample[0, 0].numel())
            self.steps.append((begun, clock.now))
            return sample

        def to_pixels(latents: Tensor, *, fp32: bool = False) -> Tensor:
            clock.now += IMAGE_S * len(latents) * latents[0, 0].numel() / LATENTS
            return latents.new_zeros(len(latents), 3, 8, 8)

        def to_latents(pixels: Tensor, generator: torch.Generator) -> Tensor:
            clock.now += IMAGE_S
            return pixels.new_zeros(1, 4, pixels.shape[2] // 8, pixels.shape[3] // 8)

        def encoded(texts: Sequence[Any]) -> list[Any]:
            clock.now += PROMPT_S * len(texts)
            return list(encode(texts))

        family.denoise, family.to_pixels, family.to_latents = denoise, to_pixels, to_latents
        family.encode = encoded
