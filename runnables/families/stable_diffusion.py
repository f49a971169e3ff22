"""Stable Diffusion 1.x and 2.x have a UNet with one CLIP text encoder (arXiv:2112.10752)."""

from __future__ import annotations

from runnables.families.unet import UNetFamily


class StableDiffusion(UNetFamily):
    """These models predict epsilon or v; the sampler's table holds the difference."""
