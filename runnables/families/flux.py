"""FLUX.1 (dev and schnell, by Black Forest Labs): a transformer on packed latents of 2x2 patches.

The guidance scale is an input of dev and unknown to schnell, so there is no unconditional row, and
a negative prompt has no effect. T5 encodes the prompt; CLIP gives one pooled vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from runnables.checkpoints.checkpoint import Checkpoint
from runnables.families.base import Conditioning, Size
from runnables.families.distilled import TOKENS, DistilledFlow
from runnables.families.text.clip import ClipEncoder, added
from runnables.families.text.prompts import Embedding, Text, TextAddition, grouped
from runnables.families.text.t5 import T5Encoder


class Residuals(NamedTuple):
    """ControlNets add these to the blocks with two streams and to those with one.

    Each is (U, image tokens, features); a transformer with more blocks repeats them.
    """

    double: Sequence[Tensor]
    single: Sequence[Tensor]


class Flux(DistilledFlow):
    """Models with and without an embedding of the guidance scale."""

    features = frozenset({"loras", "controlnets", "hires"})

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        parts = checkpoint.components
        self._clip = ClipEncoder(
            "text_encoder", parts["tokenizer"], parts["text_encoder"], device, normed=True
        )
        self._t5 = T5Encoder(parts["tokenizer_2"], parts["text_encoder_2"], device, TOKENS)
        super().__init__(checkpoint, device, dtype, self._t5)

    # -- text -------------------------------------------------------------------------------

    def encode(self, texts: Sequence[Text]) -> list[Embedding]:
        return grouped(texts, lambda text: text.additions, self._encoded)

    def _encoded(
        self, additions: Sequence[TextAddition], texts: Sequence[Text]
    ) -> Iterator[Embedding]:
        prompts = [text.prompt for text in texts]
        with added([self._clip], additions):
            pooled = self._clip.pooled(prompts).to(self.dtype)
        return map(Embedding, self._t5.encode(prompts).to(self.dtype), pooled)

    def condition(
        self, embedding: Embedding, size: Size, guidance_scale: float, *, negative: bool
    ) -> Conditioning:
        scale = torch.tensor(guidance_scale, device=self.device, dtype=torch.float32)
        return Conditioning(embedding.hidden_states, embedding.pooled, guidance=scale)

    # -- the transformer --------------------------------------------------------------------

    def denoise(
        self,
        sample: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        *,
        residuals: Residuals | None = None,
        **extra: Any,
    ) -> Tensor:
        """One transformer call on the packed latents; `residuals` are what ControlNets add."""
        double, single = residuals or ((), ())
        height, width = sample.shape[2:]
        text = conditioning.hidden_states
        output: Tensor = self.denoiser(
            hidden_states=pack(sample.to(self.dtype)),
            timestep=timesteps.to(self.dtype) / 1000,
            guidance=conditioning.guidance if self.denoiser.config.guidance_embeds else None,
            pooled_projections=conditioning.pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=text.device, dtype=text.dtype),
            img_ids=positions(height // 2, width // 2, text),
            controlnet_block_samples=double or None,
            controlnet_single_block_samples=single or None,
            return_dict=False,
        )[0]
        return unpack(output, height, width)


def pack(latents: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h / 2 * w / 2, 4 * C): a token for each patch of 2x2 latents."""
    n, channels, height, width = latents.shape
    patches = latents.view(n, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(n, height * width // 4, 4 * channels)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """(N, h / 2 * w / 2, 4 * C) -> (N, C, h, w)."""
    patches = tokens.view(len(tokens), height // 2, width // 2, -1, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)


def positions(height: int, width: int, like: Tensor) -> Tensor:
    """(height * width, 3): for each patch 0, its row and its column."""
    ids = torch.zeros(height, width, 3, device=like.device, dtype=like.dtype)
    ids[..., 1] = torch.arange(height, device=like.device)[:, None]
    ids[..., 2] = torch.arange(width, device=like.device)
    return ids.view(-1, 3)
