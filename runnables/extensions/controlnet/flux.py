"""ControlNets of FLUX.1 add to the blocks of its transformer, on packed latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from runnables.extensions.controlnet.base import Added, ControlNet, Run, spread, unlike
from runnables.families.base import Family, Size
from runnables.families.flux import Residuals, pack, positions

#: what a ControlNet and the transformer it acts on have in common
SHARED = (
    "in_channels",
    "attention_head_dim",
    "num_attention_heads",
    "joint_attention_dim",
    "pooled_projection_dim",
)


class FluxControlNet(ControlNet):
    """This is a diffusers FluxControlNetModel."""

    class_name = "FluxControlNetModel"

    @staticmethod
    def difference(config: Mapping[str, Any], family: Family) -> str | None:
        for name in ("num_mode", "conditioning_embedding_channels"):  # Union, and XLabs'
            if config.get(name) is not None:
                return f"{name} is {config[name]}, which is not supported"
        return unlike(config, {name: family.denoiser.config[name] for name in SHARED})

    def prepare(self, picture: Image, size: Size) -> Tensor:
        """Return the picture's latents (C, h, w)."""
        return self.latents(picture, size)

    def call(self, sample: Tensor, timesteps: Tensor, run: Run) -> Added:
        """Return what is added to the blocks of both kinds, (n, tokens, features) of n rows."""
        height, width = sample.shape[2:]
        text, dtype = run.conditioning.hidden_states, self.family.dtype
        double, single = self.model(
            hidden_states=pack(sample.to(dtype)),
            controlnet_cond=pack(run.images),
            conditioning_scale=run.weights.view(-1, 1, 1),
            timestep=timesteps.to(dtype) / 1000,
            guidance=run.conditioning.guidance if self.model.config.guidance_embeds else None,
            pooled_projections=run.conditioning.pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=text.device, dtype=text.dtype),
            img_ids=positions(height // 2, width // 2, text),
            return_dict=False,
        )
        return double or (), single or ()

    def blockwise(self, added: Added) -> Added:
        transformer = self.family.denoiser
        kinds = (transformer.transformer_blocks, transformer.single_transformer_blocks)
        return tuple(
            spread(part, len(blocks), math.ceil(len(blocks) / max(1, len(part))))
            for part, blocks in zip(added, kinds, strict=True)
        )

    def packed(self, added: Added) -> Residuals:
        """Return the sums as the family's `denoise` takes them."""
        return Residuals(*added)
