"""A row is one image that is being generated, with the stages that it passes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from runnables.engine.denoise import Denoise
from runnables.engine.hires import SecondPass
from runnables.engine.scheduling import BatchKey
from runnables.extensions.base import Active
from runnables.families.base import Conditioning, Family, Size
from runnables.families.latents import Start, draw_noises
from runnables.samplers.table import SamplerTable


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage is one sampler run with one model; SDXL's refiner is a second stage of the same row.

    Attributes:
        active: the extensions that the request asks for, each with what the row carries for it.
        weight: what they add to every denoiser row, in parts of one, where all of them act.
        extra_rows: denoiser rows of their own, on average over the steps.
        earlier: denoiser calls of the pass before this stage, in other stages.
        calls: denoiser calls of the whole pass.
        second_pass: where this stage is one, how its first sample is made of the stage before it.
            Without it that stage's last sample is the first one here.
    """

    family: Family
    table: SamplerTable
    positive: Conditioning
    negative: Conditioning | None
    guidance_scale: float
    guidance_rescale: float
    guidance_interval: tuple[float, float]
    active: tuple[Active, ...]
    weight: float
    extra_rows: float
    earlier: int = 0
    calls: int = 0
    second_pass: SecondPass | None = None

    @property
    def load(self) -> float:
        """Return the denoiser rows of a call; what extensions add counts as fractions of one."""
        rows = (2 if self.negative else 1) + self.extra_rows
        return rows * (1 + self.weight)

    def guided(self, step: int) -> bool:
        """Return whether this denoiser call runs a second, unconditional row."""
        first, last = self.guidance_interval
        return self.negative is not None and first <= (self.earlier + step) / self.calls < last


class Row:
    """A row is one image of a request.

    Attributes:
        state: (depth, C, h, w) float32, the sampler's state; slot 0 is the current sample, and
            slots that are missing are zero.
        step: denoiser calls done in the current stage; `done` counts those of all stages.
        denoised: whether the current stage is over, and the latents wait to be decoded.
        kept: what extensions remember from call to call.
        noise: (C, h, w) of the next steps whose sampler needs some, by step, on the device.
    """

    def __init__(self, work: Denoise, seed: int, stages: Sequence[Stage], start: Start) -> None:
        self.work = work
        self.seed = seed
        self.start = start
        self._stages = list(stages)
        self.step = 0
        self.done = 0
        self.kept: dict[str, Any] = {}
        self.noise: dict[int, Tensor] = {}
        self._enter(start.sample)

    @property
    def stage(self) -> Stage:
        return self._stages[0]

    @property
    def second_pass(self) -> SecondPass | None:
        """Return the next stage's second pass, where it is one."""
        return self._stages[1].second_pass if len(self._stages) > 1 else None

    @property
    def steps(self) -> int:
        """Return the number of denoiser calls of the current stage."""
        return len(self.stage.table)

    @property
    def guided(self) -> bool:
        return self.stage.guided(self.step)

    @property
    def denoiser_rows(self) -> int:
        """Return the denoiser rows of the next call."""
        return self._own_rows + sum(one.rows(part, self) for one, part in self.stage.active)

    @property
    def _own_rows(self) -> int:
        return 2 if self.guided else 1

    @property
    def acting(self) -> tuple[Hashable, ...]:
        """Return what the extensions do in the next call."""
        return tuple(one.acts(part, self) for one, part in self.stage.active)

    @property
    def load(self) -> float:
        """Return the denoiser rows of the next call, with what extensions add as fractions."""
        if self.denoised:
            return 1.0
        weight = sum(one.load_of(part, self) for one, part in self.stage.active)
        return self.denoiser_rows * (1 + weight)

    @property
    def size(self) -> Size:
        """Return (height, width) of the latents."""
        return self.state.shape[2], self.state.shape[3]

    @property
    def key(self) -> BatchKey:
        height, width = self.size
        if self.denoised:
            return BatchKey(self.stage.family.number, height, width, 0, decoding=True)
        acting = frozenset(
            one.name for one, part in self.stage.active if one.splits and one.acts(part, self)
        )
        tokens = self.stage.positive.hidden_states.shape[0]
        number, mixes = self.stage.family.number, self._mixes(height, width)
        return BatchKey(number, height, width, tokens, acting, mixes=mixes, listed=self.listed)

    @property
    def listed(self) -> bool:
        """Return whether calls with rows of other sizes take the time of each row's positions."""
        return self.stage.family.listed and not any(one.adapts for one, _ in self.stage.active)

    def _mixes(self, height: int, width: int) -> bool:
        """Return whether the row's next call may have rows of other sizes and prompt lengths."""
        multiple = self.stage.family.traits.canvas_multiple
        fits = multiple and height % multiple == width % multiple == 0
        rescaled = self.guided and self.stage.guidance_rescale  # by a deviation over all positions
        return bool(fits and not rescaled and all(one.mixes for one, _ in self.stage.active))

    @property
    def latents(self) -> Tensor:
        """Return the current sample, (C, h, w) float32."""
        return self.state[0]

    @property
    def level(self) -> tuple[float, float]:
        """Return how much of the finished latents and of noise the current sample is made of."""
        return self.stage.table.levels[self.step - 1]

    @property
    def remaining(self) -> float:
        """Return the load of the remaining calls x latent positions, as if all were guided."""
        area = self.key.area
        left = -self.step * self.stage.load * area
        for stage in self._stages:
            area = stage.second_pass.area if stage.second_pass else area
            left += len(stage.table) * stage.load * area
        return left

    def advance(self) -> bool:
        """Count a step, and move on to the next stage.

        Returns:
            True when the image is denoised, or has to be enlarged before its `second_pass`.
        """
        self.step += 1
        self.done += 1
        if self.step < len(self.stage.table):
            return False
        if len(self._stages) == 1 or self.second_pass:
            self.denoised = True
            return True
        self.begin_next(self.latents)
        return False

    def begin_next(self, sample: Tensor) -> None:
        """Enter the next stage with its first sample, (C, h, w) float32."""
        del self._stages[0]
        self.step = 0
        self.kept.clear()
        self._enter(sample)

    def next_noise(self) -> Tensor | None:
        """Return the noise (C, h, w) of the next step, where its sampler needs some."""
        table = self.stage.table
        if table.draws_noise[self.step] and self.step not in self.noise:
            shape = (1, *self.latents.shape)
            generator, family = self.start.generator, self.stage.family
            self.noise = draw_noises(table, self.step, shape, generator, family)
        return self.noise.get(self.step)

    def _enter(self, sample: Tensor) -> None:
        """Begin the current stage."""
        self.denoised = False
        self.state = sample[None]
        self.noise = {}
