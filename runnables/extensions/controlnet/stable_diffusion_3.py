"""ControlNets of Stable Diffusion 3 add to the blocks of its transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from runnables.extensions.controlnet.base import Added, ControlNet, Run, spread, unlike
from runnables.families.base import Family, Size

#: what a ControlNet and the transformer it acts on have in common
SHARED = ("patch_size", "attention_head_dim", "num_attention_heads", "pooled_projection_dim")


class StableDiffusion3ControlNet(ControlNet):
    """This is a diffusers SD3ControlNetModel."""

    class_name = "SD3ControlNetModel"

    @staticmethod
    def difference(config: Mapping[str, Any], family: Family) -> str | None:
        wanted = {name: family.denoiser.config[name] for name in SHARED}
        return unlike(config, {**wanted, "in_channels": family.traits.latent_channels})

    def __init__(self, name: str, model: Any, family: Family) -> None:
        super().__init__(name, model, family)
        self._zero_pooled = bool(model.config.force_zeros_for_pooled_projection)
        if model.pos_embed is None:  # those for 3.5 Large use the transformer's
            own = model._get_pos_embed_from_transformer(family.denoiser)
            model.pos_embed = own.to(family.device, family.dtype)

    def prepare(self, picture: Image, size: Size) -> Tensor:
        """Return the picture's latents (C, h, w).

        Without pooled projections a ControlNet was trained on latents without the VAE's shift.
        """
        return self.latents(picture, size, shifted=not self._zero_pooled)

    def call(self, sample: Tensor, timesteps: Tensor, run: Run) -> Added:
        """Return what is added to the blocks, each (n, tokens, features) of n rows."""
        pooled = run.conditioning.pooled
        assert pooled is not None
        has_text = self.model.config.joint_attention_dim is not None
        added: tuple[Sequence[Tensor]] = self.model(
            hidden_states=sample.to(self.family.dtype),
            timestep=timesteps,
            encoder_hidden_states=run.conditioning.hidden_states if has_text else None,
            pooled_projections=torch.zeros_like(pooled) if self._zero_pooled else pooled,
            controlnet_cond=run.images,
            conditioning_scale=run.weights.view(-1, 1, 1),
            return_dict=False,
        )
        return added

    def blockwise(self, added: Added) -> Added:
        (blocks,), depth = added, len(self.family.denoiser.transformer_blocks)
        return (spread(blocks, depth, depth / len(blocks)),)

    def packed(self, added: Added) -> Sequence[Tensor]:
        """Return the sums as the family's `denoise` takes them."""
        return added[0]
