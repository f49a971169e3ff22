"""ControlNets of the families with a UNet add to its skip connections and its middle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from PIL.Image import Image
from torch import Tensor

from runnables.extensions.controlnet.base import Added, ControlNet, Run, unlike
from runnables.families.base import Family, Size
from runnables.families.latents import control_to_pixels
from runnables.families.unet import Residuals, UNetFamily

#: what a ControlNet and the UNet it acts on have in common
SHARED = (
    "cross_attention_dim",
    "block_out_channels",
    "layers_per_block",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "class_embed_type",
)


class UNetControlNet(ControlNet):
    """This is a diffusers ControlNetModel."""

    class_name = "ControlNetModel"

    @staticmethod
    def difference(config: Mapping[str, Any], family: Family) -> str | None:
        own, traits = family.denoiser.config, family.traits
        wanted = {name: own[name] for name in SHARED}
        wanted |= {"in_channels": traits.latent_channels, "conditioning_channels": 3}
        shrinks = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
        if shrinks != traits.scale_factor:
            return f"images are shrunk {shrinks} times, not {traits.scale_factor}"
        return unlike(config, wanted)

    def __init__(self, name: str, model: Any, family: Family) -> None:
        super().__init__(name, model, family)
        # diffusers, too, keeps those that were trained so from unconditional rows
        self.conditional_only = bool(model.config.global_pool_conditions)

    def prepare(self, picture: Image, size: Size) -> Tensor:
        """Return the picture as (3, H, W) in 0..1."""
        return control_to_pixels(picture, size).to(self.family.device, self.family.dtype)

    def call(self, sample: Tensor, timesteps: Tensor, run: Run) -> Added:
        """Return what is added to the skip connections, and to the middle block."""
        down, mid = self.model(
            sample.to(self.family.dtype),
            timesteps,
            encoder_hidden_states=run.conditioning.hidden_states,
            controlnet_cond=run.images,
            conditioning_scale=run.weights.view(-1, 1, 1, 1),
            added_cond_kwargs=cast(UNetFamily, self.family).added_conditions(run.conditioning),
            return_dict=False,
        )
        return down, (mid,)

    def packed(self, added: Added) -> Residuals:
        """Return the sums as the family's `denoise` takes them."""
        down, (mid,) = added
        return Residuals(tuple(down), mid)
