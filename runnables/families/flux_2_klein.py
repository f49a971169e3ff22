"""FLUX.2 klein (by Black Forest Labs): a transformer on packed latents of 2x2 patches.

Three layers of Qwen3 encode the prompt. The distilled models run without guidance; the base models
guide, with an unconditional row. An image to start from would be further tokens beside the noise,
in image to image and in inpainting alike, so this family generates from text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from runnables.checkpoints.checkpoint import Checkpoint
from runnables.families.base import Conditioning, Levels, Size
from runnables.families.distilled import TOKENS, DistilledFlow
from runnables.families.flux import pack, unpack
from runnables.families.text.prompts import Embedding, Text
from runnables.families.text.qwen import QwenEncoder

PATCH = 2  # latents along a side of a patch
LAYERS = (9, 18, 27)  # of Qwen3, as diffusers' pipeline reads them


class Flux2Klein(DistilledFlow):
    """Distilled and base models; noise and the VAE's statistics have a channel per patch's part."""

    features = frozenset()

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        parts = checkpoint.components
        self._qwen = QwenEncoder(
            parts["tokenizer"], parts["text_encoder"], device, TOKENS, LAYERS, thinks=False
        )
        super().__init__(checkpoint, device, dtype, self._qwen)
        distilled = bool(checkpoint.config.get("is_distilled"))
        self.traits = replace(
            self.traits, distilled_guidance=distilled, text_only=True, noise_patch=PATCH
        )

    # -- text -------------------------------------------------------------------------------

    def encode(self, texts: Sequence[Text]) -> list[Embedding]:
        """Encode prompts; the transformer sees what fills up a short one, too."""
        rows, _ = self._qwen.states([text.prompt for text in texts])
        return [Embedding(row) for row in rows.to(self.dtype)]

    def condition(
        self, embedding: Embedding, size: Size, guidance_scale: float, *, negative: bool
    ) -> Conditioning:
        return Conditioning(embedding.hidden_states)

    # -- the transformer --------------------------------------------------------------------

    def levels(self, size: Size, steps: int) -> Levels:
        """Shift the levels by the image's tokens and the steps."""
        shift = shift_of(self.traits.area(size) // PATCH**2, steps)
        return replace(super().levels(size, steps), mu=shift)

    def denoise(
        self, sample: Tensor, timesteps: Tensor, conditioning: Conditioning, **extra: Any
    ) -> Tensor:
        """Run one transformer call on the packed latents."""
        height, width = sample.shape[2:]
        text = conditioning.hidden_states
        output: Tensor = self.denoiser(
            hidden_states=pack(sample.to(self.dtype)),
            timestep=timesteps.to(self.dtype) / 1000,
            encoder_hidden_states=text,
            txt_ids=positions(1, 1, text.shape[1], text.device),
            img_ids=positions(height // PATCH, width // PATCH, 1, text.device),
            return_dict=False,
        )[0]
        return unpack(output, height, width)

    # -- the VAE ----------------------------------------------------------------------------

    def _scale(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return pixel_shuffle((pixel_unshuffle(latents, PATCH) - mean) / std, PATCH)

    def _unscale(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return pixel_shuffle(pixel_unshuffle(latents, PATCH) * std + mean, PATCH)

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation, (1, 4 * C, 1, 1), that the VAE's batch norm has learnt."""
        norm = self.vae.bn
        mean = norm.running_mean.view(1, -1, 1, 1)
        std = (norm.running_var.view(1, -1, 1, 1) + norm.eps).sqrt()
        return mean.to(latents), std.to(latents)


def shift_of(tokens: int, steps: int) -> float:
    """The shift of the noise levels; the constants are those of diffusers' `compute_empirical_mu`.

    It is linear in the tokens for 10 steps and for 200, and linear in the steps between these.
    """
    of_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return of_200
    of_10 = 8.73809524e-05 * tokens + 1.89833333
    return of_200 + (of_200 - of_10) / 190 * (steps - 200)


def positions(height: int, width: int, words: int, device: torch.device) -> Tensor:
    """(height * width * words, 4): for each token 0, its row, its column, its place in the text."""
    sides = (1, height, width, words)
    return torch.cartesian_prod(*(torch.arange(side, device=device) for side in sides))
