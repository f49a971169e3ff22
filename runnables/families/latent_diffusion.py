"""The families that denoise the latents of an AutoencoderKL share this code."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from runnables.checkpoints.checkpoint import Checkpoint
from runnables.checkpoints.families import FAMILIES
from runnables.families.base import Levels, Size, Traits
from runnables.families.text.prompts import Embedding
from runnables.samplers.names import prediction_of


class LatentDiffusion:
    """This base of the families has the VAE's side of `Family`, and defaults for the rest."""

    traits: Traits
    listed = False
    _numbers = itertools.count()

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.dtype = self.noise_dtype = dtype
        self.number = next(self._numbers)
        self.denoiser_name = FAMILIES[checkpoint.family].denoiser
        self.denoiser: Any = checkpoint.denoiser
        self.vae: Any = checkpoint.components["vae"]

    # -- defaults ---------------------------------------------------------------------------

    def empty(self, like: Embedding) -> Embedding | None:
        return None

    def lengthen(self, embedding: Embedding, tokens: int, filler: Embedding) -> Embedding:
        return embedding  # all have one length

    def levels(self, size: Size, steps: int) -> Levels:
        return Levels()

    def finished(self, latents: Tensor, *, inpainted: bool) -> Tensor:
        return latents

    # -- the VAE ----------------------------------------------------------------------------

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def scale_factor(self) -> int:
        """Return the pixels that a latent covers along each side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def traits_of(
        self, patch: int, sample_size: int | Sequence[int], features: frozenset[str], **further: Any
    ) -> Traits:
        """Return the traits, of which those that are not passed follow from the checkpoint.

        Args:
            patch: latents along a side of what the denoiser sees as one.
            sample_size: latents along the sides of its native size; the profile's comes first.
        """
        profile, factor = self.checkpoint.profile, self.scale_factor
        sides = (sample_size, sample_size) if isinstance(sample_size, int) else tuple(sample_size)
        return Traits(
            family=self.checkpoint.family,
            latent_channels=self.latent_channels,
            scale_factor=factor,
            size_multiple=patch * factor,
            native_size=(profile.height or sides[0] * factor, profile.width or sides[1] * factor),
            prediction=prediction_of(self.checkpoint.scheduler_config),
            features=features,
            **further,
        )

    def to_latents(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        posterior = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist
        latents: Tensor = posterior.sample(generator)
        return self._scale(latents.to(self.dtype))

    def to_pixels(self, latents: Tensor, *, fp32: bool = False) -> Tensor:
        vae = _in_fp32(self.vae, self.device) if fp32 else self.vae
        latents = self._unscale(latents.to(vae.dtype))
        pixels: Tensor = vae.decode(latents, return_dict=False)[0].float()
        return (pixels / 2 + 0.5).clamp(0, 1)

    @property
    def _scaling_factor(self) -> float:
        return float(self.vae.config.scaling_factor)

    @property
    def _shift_factor(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)

    def _scale(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return (latents - mean - self._shift_factor) * self._scaling_factor / std

    def _unscale(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return latents * std / self._scaling_factor + mean + self._shift_factor

    def _statistics(self, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return the VAE's latent mean and deviation, (1, C, 1, 1), where its config has them."""
        mean = getattr(self.vae.config, "latents_mean", None)
        std = getattr(self.vae.config, "latents_std", None)
        if mean is None or std is None:
            return 0.0, 1.0
        return _as_channels(mean, latents), _as_channels(std, latents)


def shift_of(tokens: int, config: Mapping[str, Any], most: float = 1.16) -> float:
    """The shift of the noise levels of so many image tokens: linear between two anchors.

    Args:
        config: of the model's scheduler.
        most: the larger anchor's shift where the config has none.
    """
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", most)
    slope = (high - low) / (many - few)
    return float(tokens * slope + low - slope * few)


def _in_fp32(vae: Any, device: torch.device) -> Any:
    """Return a copy of a VAE for one call; streamed weights come in their own format every time."""
    with torch.device("meta"):
        copy = type(vae).from_config(vae.config)
    for own, new in zip(vae.modules(), copy.modules(), strict=True):
        for name, weight in own.named_parameters(recurse=False):
            weight = weight.to_dense().to(device, torch.float32)
            # not by attribute: while another thread loads a model, Accelerate moves such to "meta"
            new._parameters[name] = nn.Parameter(weight, requires_grad=False)
    return copy.eval()


def _as_channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)
