"""Stable Diffusion 1, 2 and XL share a UNet that is conditioned by CLIP text encoders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from runnables.checkpoints.checkpoint import Checkpoint
from runnables.errors import InvalidInput
from runnables.families.base import Conditioning, Size
from runnables.families.canvas import Canvas, Canvases, multiple
from runnables.families.guidance import scale_embedding
from runnables.families.latent_diffusion import LatentDiffusion
from runnables.families.text.clip import clip_encoders
from runnables.families.text.encode import encode, lengthen
from runnables.families.text.prompts import Embedding, Text

_TEXT = {"embeddings", "prompt_syntax", "clip_skip"}
FEATURES = frozenset({"loras", "controlnets", "deep_cache_interval", "hires"} | _TEXT)


class Residuals(NamedTuple):
    """`down` is added to the UNet's skip connections, `mid` to its middle block.

    Each (U, channels, height, width), or (U, channels, 1, 1) from pooled conditions.
    """

    down: tuple[Tensor, ...]
    mid: Tensor


class UNetFamily(LatentDiffusion):
    """This is the base of the families with a UNet2DConditionModel.

    Attributes:
        encoders: the text encoders with their tokenizers, in the checkpoint's order.
    """

    #: the text encoders' hidden states go through their final norm
    normed_text = True
    #: the last text encoder's projection is a condition, too
    pooled_text = False

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(checkpoint, device, dtype)
        self.unet: Any = self.denoiser
        self.encoders = clip_encoders(checkpoint, device, normed=self.normed_text)
        config, compiled = self.unet.config, checkpoint.compiled
        self.traits = self.traits_of(
            1,
            config.sample_size,
            FEATURES if compiled is None else frozenset({"clip_skip"}),
            inpaints_only=bool(config.in_channels != self.latent_channels),
            distilled_guidance=config.time_cond_proj_dim is not None,
            deepest_clip_skip=min(encoder.deepest_skip for encoder in self.encoders),
            compiled=compiled is not None,
            canvas_multiple=multiple(self.unet) if compiled is None else 0,
        )
        self._canvases: Canvases | None = None

    # -- text -------------------------------------------------------------------------------

    def check(self, prompts: dict[str, Text]) -> None:
        for field, text in prompts.items():
            if text.syntax != "plain":
                from runnables.families.text.weighting import check

                check(text.prompt, field, text.syntax)
            if self.checkpoint.compiled is None:
                continue
            if not all(encoder.fits(text.prompt) for encoder in self.encoders):
                raise InvalidInput(f"{field} is longer than the compiled 77 tokens", loc=(field,))

    def encode(self, texts: Sequence[Text]) -> list[Embedding]:
        return encode(self.encoders, texts, self.dtype, pooled=self.pooled_text)

    def lengthen(self, embedding: Embedding, tokens: int, filler: Embedding) -> Embedding:
        return lengthen(embedding, tokens, filler)

    def condition(
        self, embedding: Embedding, size: Size, guidance_scale: float, *, negative: bool
    ) -> Conditioning:
        return Conditioning(embedding.hidden_states, guidance=self._guidance(guidance_scale))

    def added_conditions(self, conditioning: Conditioning) -> dict[str, Tensor] | None:
        """Return further inputs of this family's UNet."""
        return None

    # -- the UNet ---------------------------------------------------------------------------

    def denoise(
        self,
        sample: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        *,
        residuals: Residuals | None = None,
        **extra: Any,
    ) -> Tensor:
        """Run one UNet call; `residuals` are what ControlNets add."""
        unet, added = self.unet, dict[str, Any]()
        if conditioning.mask is not None:
            added["encoder_attention_mask"] = conditioning.mask
        if residuals is not None:
            unet = unet.forward  # never compiled: that would be another graph
            added["down_block_additional_residuals"] = residuals.down
            added["mid_block_additional_residual"] = residuals.mid
        with self._on(conditioning.canvas):
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

    @contextmanager
    def _on(self, canvas: Canvas | None) -> Iterator[None]:
        """Tell the UNet of a call's canvas, where it has one."""
        if canvas is None:
            yield
            return
        canvases = self._canvases = self._canvases or Canvases(self.unet)
        canvases.current = canvas
        try:
            yield
        finally:
            canvases.current = None

    def _guidance(self, guidance_scale: float) -> Tensor | None:
        dimension = self.unet.config.time_cond_proj_dim
        if dimension is None:
            return None
        return scale_embedding(guidance_scale, int(dimension)).to(self.device, self.dtype)
