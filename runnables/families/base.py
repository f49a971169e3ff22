"""The seam between the engine and a model family: text in, UNet rows, latents, pixels out.

A pipeline here holds no loop and no request: the engine owns the steps. All methods run under
`torch.inference_mode()` on the engine's thread, and change nothing in the pipeline.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from runnables.families.guidance import scale_embedding
from runnables.families.text.clip import ClipEncoder, Embedding, Text, encode

if TYPE_CHECKING:
    from runnables.checkpoints.loading import Checkpoint
    from runnables.extensions.controlnet.residuals import Residuals


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What the UNet is told beside sample and timestep; one row, or stacked with a leading axis.

    Attributes:
        hidden_states: (tokens, features) for cross-attention.
        pooled: (features,), SDXL's second text encoder.
        time_ids: (6,) or (5,), SDXL's sizes and crops, or the refiner's aesthetic score.
        guidance: (time_cond_proj_dim,), guidance embedding of distilled (LCM) models.
    """

    hidden_states: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    guidance: Tensor | None = None

    @classmethod
    def stack(cls, rows: Sequence[Conditioning]) -> Conditioning:
        """Rows of one model, stacked along a new first axis."""
        return cls(
            torch.stack([row.hidden_states for row in rows]),
            _stack([row.pooled for row in rows]),
            _stack([row.time_ids for row in rows]),
            _stack([row.guidance for row in rows]),
        )

    def select(self, rows: Tensor) -> Conditioning:
        """These rows (n,) of what is stacked."""
        return Conditioning(
            self.hidden_states[rows],
            None if self.pooled is None else self.pooled[rows],
            None if self.time_ids is None else self.time_ids[rows],
            None if self.guidance is None else self.guidance[rows],
        )


def _stack(tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present) if present else None


class Pipeline:
    """What all latent diffusion families share; a family overrides its conditioning.

    Attributes:
        number: unlike that of any other pipeline of this process, also of one that is gone.
    """

    #: the text encoders' hidden states go through their final norm
    normed_text = True
    #: the last text encoder's projection is a condition, too
    pooled_text = False
    _numbers = itertools.count()

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.dtype = dtype
        self.unet = checkpoint.unet
        self.vae = checkpoint.vae
        self.number = next(self._numbers)
        self.encoders = tuple(
            ClipEncoder(tokenizer, model, normed=self.normed_text)
            for tokenizer, model in zip(
                checkpoint.tokenizers, checkpoint.text_encoders, strict=True
            )
        )

    # -- what a family says ------------------------------------------------------------------

    def encode_prompts(self, texts: Sequence[Text]) -> list[Embedding]:
        """Encode prompts, plain ones together. Those of one call may differ in length."""
        return encode(self.encoders, texts, self.dtype, pooled=self.pooled_text)

    def condition(
        self, embedding: Embedding, size: tuple[int, int], guidance_scale: float, *, negative: bool
    ) -> Conditioning:
        """The UNet's conditioning of one row that draws `size` (height, width) pixels."""
        return Conditioning(embedding.hidden_states, guidance=self._guidance(guidance_scale))

    def empty(self, like: Embedding) -> Embedding | None:
        """What stands for "no negative prompt" where that is not the encoding of ""."""
        return None

    def added_conditions(self, conditioning: Conditioning) -> dict[str, Tensor] | None:
        """Further inputs of this family's UNet."""
        return None

    # -- shared -----------------------------------------------------------------------------

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def scale_factor(self) -> int:
        """Pixels a latent covers along each side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def native_size(self) -> tuple[int, int]:
        """(height, width) in pixels the model was trained for."""
        profile, sample = self.checkpoint.profile, self.unet.config.sample_size
        height, width = (sample, sample) if isinstance(sample, int) else tuple(sample)
        factor = self.scale_factor
        return profile.height or height * factor, profile.width or width * factor

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of latents of the native size."""
        height, width = self.native_size
        return height // self.scale_factor, width // self.scale_factor

    @property
    def inpaints_only(self) -> bool:
        """True for UNets that take mask and masked image as five further channels."""
        return bool(self.unet.config.in_channels != self.latent_channels)

    @property
    def distilled_guidance(self) -> bool:
        """True where the UNet takes the guidance scale itself, so no unconditional row is run."""
        return self.unet.config.time_cond_proj_dim is not None

    def predict(
        self,
        sample: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        residuals: Residuals | None = None,
    ) -> Tensor:
        """One UNet call.

        Args:
            sample: (U, in_channels, h, w), scaled as the sampler asks.
            timesteps: (U,) float32, a timestep a row.
            conditioning: stacked, U rows.
            residuals: what ControlNets add.

        Returns:
            (U, latent_channels, h, w) in the pipeline's dtype.
        """
        unet, added = self.unet, dict[str, Any]()
        if residuals is not None:
            unet = unet.forward  # never compiled: that would be another graph
            added["down_block_additional_residuals"] = residuals.down
            added["mid_block_additional_residual"] = residuals.mid
        output: Tensor = unet(
            sample.to(self.dtype),
            timesteps,
            encoder_hidden_states=conditioning.hidden_states,
            timestep_cond=conditioning.guidance,
            added_cond_kwargs=self.added_conditions(conditioning),
            return_dict=False,
            **added,
        )[0]
        return output

    def encode_image(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """(1, 3, H, W) in -1..1 -> (1, C, h, w) scaled latents, sampled from the posterior."""
        vae_dtype = self._vae_dtype()
        posterior = self.vae.encode(pixels.to(self.device, vae_dtype)).latent_dist
        latents: Tensor = posterior.sample(generator)
        return self._scale(latents.to(self.dtype))

    def decode(self, latents: Tensor) -> Tensor:
        """(N, C, h, w) latents -> (N, 3, H, W) float32 pixels in 0..1; NaN stays NaN."""
        latents = self._unscale(latents.to(self._vae_dtype()))
        pixels: Tensor = self.vae.decode(latents, return_dict=False)[0].float()
        return (pixels / 2 + 0.5).clamp(0, 1)

    def decode_in_fp32(self, latents: Tensor) -> Tensor:
        """`decode` with the VAE in float32: where half precision overflows (SDXL's does)."""
        before = self.vae.dtype
        self.vae.to(torch.float32)
        try:
            return self.decode(latents)
        finally:
            self.vae.to(before)

    @property
    def _scaling_factor(self) -> float:
        return float(self.vae.config.scaling_factor)

    def _vae_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.vae.dtype
        return dtype

    def _scale(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return (latents - mean) * self._scaling_factor / std

    def _unscale(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return latents * std / self._scaling_factor + mean

    def _statistics(self, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """The VAE's latent mean and deviation, (1, C, 1, 1), where its config has them."""
        mean = getattr(self.vae.config, "latents_mean", None)
        std = getattr(self.vae.config, "latents_std", None)
        if mean is None or std is None:
            return 0.0, 1.0
        return _as_channels(mean, latents), _as_channels(std, latents)

    def _guidance(self, guidance_scale: float) -> Tensor | None:
        if not self.distilled_guidance:
            return None
        dimension = int(self.unet.config.time_cond_proj_dim)
        return scale_embedding(guidance_scale, dimension).to(self.device, self.dtype)


def _as_channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)
