"""Families that are distilled to run without an unconditional row share this code.

Their transformer denoises patches of 2x2 latents by flow matching. A negative prompt has no effect,
but on a family's model that is not distilled.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from runnables.checkpoints.checkpoint import Checkpoint
from runnables.errors import InvalidInput
from runnables.families.base import Levels, Size
from runnables.families.latent_diffusion import LatentDiffusion, shift_of
from runnables.families.text.prompts import Text
from runnables.families.text.qwen import QwenEncoder
from runnables.families.text.t5 import T5Encoder

TOKENS = 512  # diffusers' max_sequence_length
SAMPLE_SIZE = 128  # latents along a side of the native size


class DistilledFlow(LatentDiffusion):
    """This base has the text's end, and the noise levels.

    Args:
        encoder: the one that reads `TOKENS` of a prompt.
    """

    features: ClassVar[frozenset[str]] = frozenset({"hires"})

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        encoder: T5Encoder | QwenEncoder,
    ) -> None:
        super().__init__(checkpoint, device, dtype)
        self._encoder = encoder
        self.traits = self.traits_of(2, SAMPLE_SIZE, self.features, distilled_guidance=True)

    def check(self, prompts: dict[str, Text]) -> None:
        """Refuse a prompt that is not read to its end: the rest would be ignored."""
        for name in ("prompt",) if self.traits.distilled_guidance else prompts:
            if self._encoder.count(prompts[name].prompt) > TOKENS:
                raise InvalidInput(
                    f"{name} is longer than the {TOKENS} tokens that this model reads", loc=(name,)
                )

    def levels(self, size: Size, steps: int) -> Levels:
        """Evenly spaced down to one step's share, and shifted by the image's tokens."""
        sigmas = torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()
        tokens = self.traits.area(size) // 4
        return Levels(shift_of(tokens, self.checkpoint.scheduler_config, most=1.15), tuple(sigmas))
