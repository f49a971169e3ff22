"""Previews show an image while it is generated, small, and at almost no cost.

The sampler's state is noisy; the model's own estimate of the finished latents is not. A linear map
from latents to colours, fitted once to the model's own VAE, shows them; a tiny VAE (TAESD and its
kin, diffusers' AutoencoderTiny) shows them sharp where the operator has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from runnables.errors import ConfigurationError
from runnables.extensions.base import Context, Extension, RowState
from runnables.extensions.safety import SafetyCheck
from runnables.families.base import Family
from runnables.parameters import Parameters

PATCH = 4  # latents along a side of a patch of one colour, in the picture the map is fitted to


class Previews(Extension):
    """Previews are made by a tiny VAE where there is one for the model, else by a linear map.

    No safety checker sees them: where it may withhold images they stay small.
    """

    name = "preview_every"
    mixes = True

    def __init__(self, family: Family, context: Context) -> None:
        super().__init__(family, context)
        folder = context.settings.preview_vae
        own = family.traits.family.removesuffix("-refiner") == context.primary
        unchecked = SafetyCheck.suits(family) and context.settings.safety in ("blur", "block")
        self._picture: Callable[[Tensor], Tensor] | None = None
        if folder is not None and own and not unchecked:
            self._picture = TinyVae(_tiny_vae(folder, family))

    @classmethod
    def suits(cls, family: Family) -> bool:
        return True

    def wanted(self, parameters: Parameters) -> bool:
        """Return False: previews are no part of a row, but may be requested at any time."""
        return False

    def preview(self, row: RowState, output: Tensor) -> Callable[[], Image.Image]:
        """Return what makes an RGB preview, of the latents' size, or the image's by a tiny VAE."""
        prediction = self.family.traits.prediction
        return partial(self._made, estimate(row.latents, output, row.level, prediction))

    def _made(self, latents: Tensor) -> Image.Image:
        if self._picture is None:
            self._picture = LinearMap(self.family)
        return Image.fromarray(self._picture(latents).numpy())


def _tiny_vae(folder: str, family: Family) -> Any:
    from diffusers import AutoencoderTiny

    try:
        vae = AutoencoderTiny.from_pretrained(folder, dtype=family.dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"SD_PREVIEW_VAE={folder}: {error}") from error
    if vae.config.latent_channels != family.traits.latent_channels:
        raise ConfigurationError(f"SD_PREVIEW_VAE={folder} is for latents of another shape")
    return vae.to(family.device).eval().requires_grad_(False)


def estimate(
    sample: Tensor, output: Tensor, weights: tuple[float, float], prediction: str
) -> Tensor:
    """Return the finished latents, as the model predicts them now, in memory of their own.

    Args:
        sample: of any shape, at a noise level where it is weights[0] x image + weights[1] x noise.
        output: the model's, guided, of the same shape.
        prediction: what the output is: epsilon, v_prediction (arXiv:2202.00512), sample, or flow
            (noise less image, arXiv:2403.03206).
    """
    if prediction == "sample":
        return output.clone()
    if prediction == "flow":
        return (sample - weights[1] * output) / (weights[0] + weights[1])
    size = math.hypot(*weights)
    of_image, of_noise = weights[0] / size, weights[1] / size
    if prediction == "v_prediction":
        return of_image * sample / size - of_noise * output
    return (sample / size - of_noise * output) / of_image


class LinearMap:
    """A linear map turns latents into a small picture.

    Attributes:
        matrix: (C + 1, 3), colours of each latent channel and of nothing.
    """

    def __init__(self, family: Family) -> None:
        """Fit the map with one call of the VAE's encoder, on patches of random colours."""
        factor = family.traits.scale_factor
        generator = torch.Generator().manual_seed(0)
        height, width = (side // factor // PATCH for side in family.traits.native_size)
        shape = (1, 3, max(height, 2), max(width, 2))
        patches = torch.rand(shape, generator=generator, dtype=torch.float32) * 2 - 1
        colours = patches.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        pixels = colours.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        latents = family.to_latents(pixels, generator).float().cpu()
        self.matrix = torch.linalg.lstsq(_with_one(latents), colours[0].flatten(1).T).solution

    def __call__(self, latents: Tensor) -> Tensor:
        """Turn (C, h, w) into (h, w, 3) uint8 on the CPU."""
        colours = _with_one(latents[None].float().cpu()) @ self.matrix
        return _bytes(colours.view(*latents.shape[1:], 3))


class TinyVae:
    """A tiny VAE turns latents into a picture of full size, by a distilled decoder."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def __call__(self, latents: Tensor) -> Tensor:
        """Turn (C, h, w) into (H, W, 3) uint8 on the CPU."""
        pixels = self.vae.decode(latents[None].to(self.vae.dtype), return_dict=False)[0][0]
        return _bytes(pixels.permute(1, 2, 0).float())


def _with_one(latents: Tensor) -> Tensor:
    """Turn (1, C, h, w) into (h * w, C + 1), with a last column of ones."""
    flat = latents[0].flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1, dtype=flat.dtype)], dim=1)


def _bytes(colours: Tensor) -> Tensor:
    return ((colours / 2 + 0.5).nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
