"""ControlNets of the families with a UNet add to its skip connections and its middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from PIL.Image import Image
from torch import Tensor

from runnables.families.base import Conditioning, Family, Size
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


class UNetControlNet:
    """This is a loaded diffusers ControlNetModel, on the model's device and in its dtype."""

    def __init__(self, name: str, model: Any, family: Family) -> None:
        self.name = name
        self.model = model
        self.nbytes = sum(weights.nbytes for weights in model.parameters())
        self._family = cast(UNetFamily, family)

    @property
    def conditional_only(self) -> bool:
        """Return whether it was trained on pooled conditions.

        diffusers keeps such ControlNets from unconditional rows.
        """
        return bool(self.model.config.global_pool_conditions)

    def prepare(self, picture: Image, size: Size) -> Tensor:
        """Return the picture as (3, H, W) in 0..1."""
        return control_to_pixels(picture, size).to(self._family.device, self._family.dtype)

    def run(
        self,
        sample: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        images: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return what is added to each skip connection and, last, to the middle block."""
        down, mid = self.model(
            sample.to(self._family.dtype),
            timesteps,
            encoder_hidden_states=conditioning.hidden_states,
            controlnet_cond=images,
            conditioning_scale=weights.view(-1, 1, 1, 1),
            added_cond_kwargs=self._family.added_conditions(conditioning),
            return_dict=False,
        )
        return (*down, mid)

    def packed(self, residuals: Sequence[Tensor]) -> Residuals:
        """Return the sums as the family's `denoise` takes them."""
        return Residuals(tuple(residuals[:-1]), residuals[-1])


def difference(config: Mapping[str, Any], family: Family) -> str | None:
    """Return, in words, where a config does not fit the model."""
    own, traits = family.denoiser.config, family.traits
    wanted = {name: own[name] for name in SHARED}
    wanted |= {"in_channels": traits.latent_channels, "conditioning_channels": 3}
    for name, value in wanted.items():
        if _plain(config[name]) != _plain(value):
            return f"{name} is {config[name]}, not {value}"
    shrinks = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
    if shrinks != traits.scale_factor:
        return f"images are shrunk {shrinks} times, not {traits.scale_factor}"
    return None


def _plain(value: Any) -> Any:
    """Return a value with lists as tuples: JSON has only lists."""
    return list(value) if isinstance(value, tuple | list) else value
