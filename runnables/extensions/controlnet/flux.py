"""ControlNets of FLUX.1 add to the blocks of its transformer, on packed latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from runnables.families.base import Conditioning, Family, Size
from runnables.families.flux import Residuals, pack, positions
from runnables.families.latents import image_to_pixels

#: what a ControlNet and the transformer it acts on have in common
SHARED = (
    "in_channels",
    "attention_head_dim",
    "num_attention_heads",
    "joint_attention_dim",
    "pooled_projection_dim",
)


class FluxControlNet:
    """This is a loaded diffusers FluxControlNetModel, on the model's device and in its dtype."""

    conditional_only = False

    def __init__(self, name: str, model: Any, family: Family) -> None:
        self.name = name
        self.model = model
        self.nbytes = sum(weights.nbytes for weights in model.parameters())
        self._family = family
        self._double = len(model.transformer_blocks)

    def prepare(self, picture: Image, size: Size) -> Tensor:
        """Return the picture's latents (C, h, w): the mean, where diffusers draws a sample."""
        vae = self._family.vae
        pixels = image_to_pixels(picture, size).to(self._family.device, vae.dtype)
        latents: Tensor = vae.encode(pixels).latent_dist.mode()[0]
        return (latents - float(vae.config.shift_factor or 0.0)) * float(vae.config.scaling_factor)

    def run(
        self,
        sample: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        images: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return what is added to each block, (n, tokens, features) of n rows."""
        height, width = sample.shape[2:]
        text, dtype = conditioning.hidden_states, self._family.dtype
        double, single = self.model(
            hidden_states=pack(sample.to(dtype)),
            controlnet_cond=pack(images),
            conditioning_scale=weights.view(-1, 1, 1),
            timestep=timesteps.to(dtype) / 1000,
            guidance=conditioning.guidance if self.model.config.guidance_embeds else None,
            pooled_projections=conditioning.pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=text.device, dtype=text.dtype),
            img_ids=positions(height // 2, width // 2, text),
            return_dict=False,
        )
        return (*(double or ()), *(single or ()))

    def packed(self, residuals: Sequence[Tensor]) -> Residuals:
        """Return the sums as the family's `denoise` takes them."""
        return Residuals(residuals[: self._double], residuals[self._double :])


def difference(config: Mapping[str, Any], family: Family) -> str | None:
    """Return, in words, where a config does not fit the model."""
    own = family.denoiser.config
    for name in SHARED:
        if config[name] != own[name]:
            return f"{name} is {config[name]}, not {own[name]}"
    for name in ("num_mode", "conditioning_embedding_channels"):  # Union, and XLabs'
        if config.get(name) is not None:
            return f"{name} is {config[name]}, which is not supported"
    return None
