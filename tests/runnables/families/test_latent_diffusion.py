"""The families that denoise latents of an AutoencoderKL encode pictures whatever the VAE does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from runnables.families.latent_diffusion import LatentDiffusion


class Overflowing(nn.Module):
    """A VAE that overflows in half precision, as SDXL's does."""

    config = SimpleNamespace(scaling_factor=2.0)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def encode(self, pixels: Tensor) -> Any:
        mean = 3.0 if self.dtype == torch.float32 else torch.nan
        moments = torch.full((1, 8, 2, 2), mean, dtype=pixels.dtype)
        moments[:, 4:] = -30.0  # hardly any variance
        return SimpleNamespace(latent_dist=DiagonalGaussianDistribution(moments))


def test_a_picture_is_encoded_in_fp32_where_half_precision_overflows() -> None:
    family = object.__new__(LatentDiffusion)
    family.device, family.dtype, family.vae = torch.device("cpu"), torch.float16, Overflowing()
    family.vae.to(torch.float16)
    latents = family.to_latents(torch.zeros(1, 3, 16, 16), torch.Generator())
    assert torch.allclose(latents.float(), torch.full((1, 4, 2, 2), 6.0), atol=0.01)
    assert (latents.dtype, family.vae.dtype) == (torch.float16, torch.float16)
