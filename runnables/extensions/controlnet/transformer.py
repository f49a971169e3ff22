"""ControlNets of Stable Diffusion 3 add to the blocks of its transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from runnables.families.base import Conditioning, Family, Size
from runnables.families.latents import image_to_pixels

#: what a ControlNet and the transformer it acts on have in common
SHARED = ("patch_size", "attention_head_dim", "num_attention_heads", "pooled_projection_dim")


class TransformerControlNet:
    """This is a loaded diffusers SD3ControlNetModel, on the model's device and in its dtype."""

    conditional_only = False

    def __init__(self, name: str, model: Any, family: Family) -> None:
        self.name = name
        self.model = model
        self.nbytes = sum(weights.nbytes for weights in model.parameters())
        self._family = family
        config = model.config
        self._zero_pooled = bool(config.force_zeros_for_pooled_projection)
        if model.pos_embed is None:  # those for 3.5 Large use the transformer's
            own = model._get_pos_embed_from_transformer(family.denoiser)
            model.pos_embed = own.to(family.device, family.dtype)

    def prepare(self, picture: Image, size: Size) -> Tensor:
        """Return the picture's latents (C, h, w): the mean, where diffusers draws a sample.

        Without pooled projections a ControlNet was trained on latents without the VAE's shift.
        """
        family, config = self._family, self._family.vae.config
        pixels = image_to_pixels(picture, size).to(family.device, family.vae.dtype)
        latents: Tensor = family.vae.encode(pixels).latent_dist.mode()[0]
        shift = 0.0 if self._zero_pooled else float(config.shift_factor or 0.0)
        return (latents - shift) * float(config.scaling_factor)

    def run(
        self,
        sample: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        images: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return what is added to each block, (n, tokens, features) of n rows."""
        pooled = conditioning.pooled
        assert pooled is not None
        has_text = self.model.config.joint_attention_dim is not None
        residuals = self.model(
            hidden_states=sample.to(self._family.dtype),
            timestep=timesteps,
            encoder_hidden_states=conditioning.hidden_states if has_text else None,
            pooled_projections=torch.zeros_like(pooled) if self._zero_pooled else pooled,
            controlnet_cond=images,
            conditioning_scale=weights.view(-1, 1, 1),
            return_dict=False,
        )[0]
        return tuple(residuals)

    def packed(self, residuals: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums as the family's `denoise` takes them."""
        return list(residuals)


def difference(config: Mapping[str, Any], family: Family) -> str | None:
    """Return, in words, where a config does not fit the model."""
    own = family.denoiser.config
    for name in SHARED:
        if config[name] != own[name]:
            return f"{name} is {config[name]}, not {own[name]}"
    if config["in_channels"] != family.traits.latent_channels:
        return f"in_channels is {config['in_channels']}, not {family.traits.latent_channels}"
    return None
