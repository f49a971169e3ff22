"""A row: one image on its way, and the stages it passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from runnables.engine.batch_key import BatchKey
from runnables.extensions.controlnet.residuals import COST, ControlSet
from runnables.extensions.lora.layers import LoraSet
from runnables.families.base import Conditioning, Pipeline
from runnables.families.latents import Start
from runnables.samplers.table import SamplerTable

if TYPE_CHECKING:
    from runnables.engine.hires import SecondPass
    from runnables.engine.plan import Request


@dataclass(frozen=True, eq=False)
class Stage:
    """One sampler run with one model. SDXL's refiner is a second stage of the same row.

    Attributes:
        second_pass: where this stage is one, how its first sample is made of the stage before it.
            Without it that stage's last sample is the first one here.
    """

    pipeline: Pipeline
    table: SamplerTable
    positive: Conditioning
    negative: Conditioning | None
    guidance_scale: float
    guidance_rescale: float
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    deep_cache_interval: int = 1
    loras: LoraSet = ()
    controls: ControlSet = ()
    second_pass: SecondPass | None = None

    @property
    def load(self) -> float:
        """UNet rows of a call, ControlNets counted as parts of one."""
        return (2 if self.negative else 1) * (1 + COST * len(self.controls))

    def guided(self, step: int) -> bool:
        """Whether this UNet call runs a second, unconditional row."""
        first, last = self.guidance_interval
        return self.negative is not None and first <= step / len(self.table) < last


class Row:
    """One image of a request.

    Attributes:
        state: (depth, C, h, w) float32, the sampler's state; slot 0 is the current sample.
        step: UNet calls done in the current stage; `done` counts those of all stages.
        features: what DeepCache keeps of the last full call, (1 or 2, channels, h, w): of the
            conditional and, where it was guided, the unconditional row.
    """

    def __init__(self, request: Request, seed: int, stages: Sequence[Stage], start: Start) -> None:
        self.request = request
        self.seed = seed
        self.start = start
        self._stages = list(stages)
        self.step = 0
        self.done = 0
        self.features: Tensor | None = None
        self.state = _first_state(start.sample, self.stage.table)

    @property
    def stage(self) -> Stage:
        return self._stages[0]

    @property
    def second_pass(self) -> SecondPass | None:
        """The next stage's, where that is one."""
        return self._stages[1].second_pass if len(self._stages) > 1 else None

    @property
    def guided(self) -> bool:
        return self.stage.guided(self.step)

    @property
    def unet_rows(self) -> int:
        return 2 if self.guided else 1

    @property
    def controls(self) -> ControlSet:
        """The ControlNets that act at this step."""
        return tuple(one for one in self.stage.controls if one.acts(self.step))

    @property
    def load(self) -> float:
        """UNet rows of the next call, ControlNets counted as parts of one."""
        return self.unet_rows * (1 + COST * len(self.controls))

    @property
    def shallow(self) -> bool:
        """Whether the next UNet call can do with the features of an earlier one."""
        due = self.step % self.stage.deep_cache_interval == 0
        return not due and self.features is not None and len(self.features) >= self.unet_rows

    @property
    def key(self) -> BatchKey:
        _, _, height, width = self.state.shape
        tokens = self.stage.positive.hidden_states.shape[0]
        return BatchKey(self.stage.pipeline.number, height, width, tokens, self.shallow)

    @property
    def urgency(self) -> float:
        return self.request.urgency

    @property
    def latents(self) -> Tensor:
        """(C, h, w) float32, the current sample."""
        return self.state[0]

    @property
    def remaining(self) -> float:
        """Load of the UNet calls still to come x their latent positions, guided throughout."""
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
            return True
        self.begin_next(self.latents)
        return False

    def begin_next(self, sample: Tensor) -> None:
        """Enter the next stage with its first sample, (C, h, w) float32."""
        del self._stages[0]
        self.step = 0
        self.features = None
        self.state = _first_state(sample, self.stage.table)


def _first_state(sample: Tensor, table: SamplerTable) -> Tensor:
    state = torch.zeros(table.depth, *sample.shape, dtype=sample.dtype, device=sample.device)
    state[0] = sample
    return state
