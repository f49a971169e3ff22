"""Pictures of an image on its way, at the size of its latents, for next to nothing.

The sampler's state is noisy; what the model takes the finished latents to be is not. A linear map
from latents to colours, fitted once to the model's own VAE, shows them; a tiny VAE (TAESD and its
kin, diffusers' AutoencoderTiny) shows them sharp where the operator has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from runnables.families.base import Pipeline

PATCH = 4  # latents along a side of a patch of one colour, in the picture the map is fitted to


def estimate(
    sample: Tensor, output: Tensor, weights: tuple[float, float], prediction_type: str
) -> Tensor:
    """The finished latents, as the model sees them now.

    Args:
        sample: of any shape, at a noise level where it is weights[0] x image + weights[1] x noise.
        output: the model's, guided, of the same shape.
        prediction_type: what the output is: epsilon, v_prediction (arXiv:2202.00512) or sample.
    """
    size = float(torch.tensor(weights, dtype=torch.float32).norm())
    of_image, of_noise = weights[0] / size, weights[1] / size
    if prediction_type == "sample":
        return output
    if prediction_type == "v_prediction":
        return of_image * sample / size - of_noise * output
    return (sample / size - of_noise * output) / of_image


class Preview:
    """Latents to a small picture, by a linear map.

    Attributes:
        matrix: (C + 1, 3), colours of each latent channel and of nothing.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        """Fit the map: one call of the VAE's encoder, on patches of random colours."""
        factor, generator = pipeline.scale_factor, torch.Generator().manual_seed(0)
        height, width = (side // factor // PATCH for side in pipeline.native_size)
        shape = (1, 3, max(height, 2), max(width, 2))
        patches = torch.rand(shape, generator=generator, dtype=torch.float32) * 2 - 1
        colours = patches.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        pixels = colours.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        latents = pipeline.encode_image(pixels, generator).float().cpu()
        self.matrix = torch.linalg.lstsq(_with_one(latents), colours[0].flatten(1).T).solution

    def __call__(self, latents: Tensor) -> Tensor:
        """(C, h, w) -> (h, w, 3) uint8 on the CPU."""
        colours = _with_one(latents[None].float().cpu()) @ self.matrix
        return _bytes(colours.view(*latents.shape[1:], 3))


class TinyVae:
    """Latents to a picture of full size, by a distilled decoder."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def __call__(self, latents: Tensor) -> Tensor:
        """(C, h, w) -> (H, W, 3) uint8 on the CPU."""
        pixels = self.vae.decode(latents[None].to(self.vae.dtype), return_dict=False)[0][0]
        return _bytes(pixels.permute(1, 2, 0).float())


def _with_one(latents: Tensor) -> Tensor:
    """(1, C, h, w) -> (h * w, C + 1)."""
    flat = latents[0].flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1, dtype=flat.dtype)], dim=1)


def _bytes(colours: Tensor) -> Tensor:
    return ((colours / 2 + 0.5).nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
