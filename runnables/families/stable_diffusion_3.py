"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206) have a transformer trained for flow matching.

CLIP-L and CLIP-G stand side by side along the features, T5 behind them along the tokens. T5 may be
left out; zeros stand for it then, as in diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from runnables.checkpoints.checkpoint import Checkpoint
from runnables.errors import InvalidInput
from runnables.families.base import Conditioning, Levels, Size
from runnables.families.latent_diffusion import LatentDiffusion, shift_of
from runnables.families.text.clip import ClipEncoder, added, clip_encoders
from runnables.families.text.prompts import Embedding, Text, TextAddition, grouped
from runnables.families.text.t5 import T5Encoder

T5_TOKENS = 256  # diffusers' max_sequence_length
FEATURES = frozenset({"loras", "controlnets", "clip_skip", "hires", "skip_layer_guidance"})


class StableDiffusion3(LatentDiffusion):
    """The models of this family are Medium, Large and Large Turbo."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(checkpoint, device, dtype)
        self.encoders: tuple[ClipEncoder, ...] = clip_encoders(checkpoint, device, normed=False)
        parts, config = checkpoint.components, self.denoiser.config
        self._t5: T5Encoder | None = None
        if "text_encoder_3" in parts:
            self._t5 = T5Encoder(parts["tokenizer_3"], parts["text_encoder_3"], device, T5_TOKENS)
        self._text_width = int(config.joint_attention_dim)
        self._patch = int(config.patch_size)
        self.traits = self.traits_of(
            self._patch,
            config.sample_size,
            FEATURES,
            largest_side=int(config.pos_embed_max_size) * self._patch * self.scale_factor,
            inpaints_only=bool(config.in_channels != self.latent_channels),
            deepest_clip_skip=min(encoder.deepest_skip for encoder in self.encoders),
        )

    # -- text -------------------------------------------------------------------------------

    def check(self, prompts: dict[str, Text]) -> None:
        """Refuse a prompt of which every text encoder would ignore the end."""
        for field, text in prompts.items():
            if all(encoder.fits(text.prompt) for encoder in self.encoders):
                continue
            room = T5_TOKENS if self._t5 else self.encoders[0].room + 2
            if self._t5 is None or self._t5.count(text.prompt) > room:
                raise InvalidInput(
                    f"{field} is longer than the {room} tokens that this model reads", loc=(field,)
                )

    def encode(self, texts: Sequence[Text]) -> list[Embedding]:
        return grouped(texts, lambda text: (text.additions, text.clip_skip), self._encoded)

    def _encoded(
        self, alike: tuple[Sequence[TextAddition], int], texts: Sequence[Text]
    ) -> Iterator[Embedding]:
        (additions, clip_skip), prompts = alike, [text.prompt for text in texts]
        with added(self.encoders, additions):
            outputs = [encoder.encode(prompts, clip_skip) for encoder in self.encoders]
        clip = torch.cat([hidden for hidden, _ in outputs], dim=-1).to(self.dtype)
        clip = torch.nn.functional.pad(clip, (0, self._text_width - clip.shape[-1]))
        pooled = torch.cat([pooled for _, pooled in outputs], dim=-1).to(self.dtype)
        if self._t5:
            t5 = self._t5.encode(prompts).to(self.dtype)
        else:
            t5 = clip.new_zeros(len(clip), T5_TOKENS, self._text_width)
        return map(Embedding, torch.cat([clip, t5], dim=-2), pooled)

    def condition(
        self, embedding: Embedding, size: Size, guidance_scale: float, *, negative: bool
    ) -> Conditioning:
        return Conditioning(embedding.hidden_states, embedding.pooled)

    # -- the transformer --------------------------------------------------------------------

    def levels(self, size: Size, steps: int) -> Levels:
        """Shift the levels by the image's tokens, where the scheduler's config asks for it."""
        config = self.checkpoint.scheduler_config
        if not config.get("use_dynamic_shifting"):
            return Levels()
        tokens = self.traits.area(size) // self._patch**2
        return Levels(mu=shift_of(tokens, config))

    def denoise(
        self,
        sample: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        *,
        residuals: Sequence[Tensor] | None = None,
        **extra: Any,
    ) -> Tensor:
        """Run one transformer call; `residuals` are what ControlNets add to its blocks."""
        output: Tensor = self.denoiser(
            hidden_states=sample.to(self.dtype),
            timestep=timesteps,
            encoder_hidden_states=conditioning.hidden_states,
            pooled_projections=conditioning.pooled,
            block_controlnet_hidden_states=residuals,
            return_dict=False,
        )[0]
        return output

    def finished(self, latents: Tensor, *, inpainted: bool) -> Tensor:
        """Return inpainted latents without the VAE's shift, as diffusers' pipeline does."""
        return latents - self._shift_factor * self._scaling_factor if inpainted else latents
