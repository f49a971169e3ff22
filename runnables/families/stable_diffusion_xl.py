"""Stable Diffusion XL (arXiv:2307.01952) has two text encoders and takes sizes and crops."""

from __future__ import annotations

import torch
from torch import Tensor

from runnables.checkpoints.checkpoint import Checkpoint
from runnables.families.base import Conditioning, Size
from runnables.families.text.prompts import Embedding
from runnables.families.unet import UNetFamily

AESTHETIC_SCORE = 6.0  # what diffusers' refiner pipeline asks for ...
NEGATIVE_AESTHETIC_SCORE = 2.5  # ... and steers away from


class StableDiffusionXL(UNetFamily):
    """The models of this family are base, turbo, inpaint and refiner models."""

    normed_text = False
    pooled_text = True

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        """Keep a VAE that overflows in fp16 in fp32, as diffusers' pipelines of this family do."""
        super().__init__(checkpoint, device, dtype)
        if dtype == torch.float16 and getattr(self.vae.config, "force_upcast", False):
            self.vae.to(torch.float32)

    def condition(
        self, embedding: Embedding, size: Size, guidance_scale: float, *, negative: bool
    ) -> Conditioning:
        return Conditioning(
            embedding.hidden_states,
            embedding.pooled,
            torch.tensor(self._time_ids(size, negative), device=self.device, dtype=self.dtype),
            self._guidance(guidance_scale),
        )

    def added_conditions(self, conditioning: Conditioning) -> dict[str, Tensor] | None:
        assert conditioning.pooled is not None and conditioning.time_ids is not None
        return {"text_embeds": conditioning.pooled, "time_ids": conditioning.time_ids}

    def empty(self, like: Embedding) -> Embedding | None:
        """Return zeros, where the model was trained with them."""
        if not self.checkpoint.config.get("force_zeros_for_empty_prompt", False):
            return None
        assert like.pooled is not None
        return Embedding(torch.zeros_like(like.hidden_states), torch.zeros_like(like.pooled))

    def _time_ids(self, size: Size, negative: bool) -> list[float]:
        """Return original size, crop corner, and target size or aesthetic score."""
        if self.checkpoint.config.get("requires_aesthetics_score", False):
            return [*size, 0, 0, NEGATIVE_AESTHETIC_SCORE if negative else AESTHETIC_SCORE]
        return [*size, 0, 0, *size]
