"""Stable Diffusion 1.x and 2.x: one CLIP text encoder (arXiv:2112.10752)."""

from __future__ import annotations

from runnables.families.base import Pipeline


class StableDiffusion(Pipeline):
    """Epsilon or v-prediction alike: what the UNet predicts is the sampler's affair."""
