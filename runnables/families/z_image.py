"""Z-Image Turbo (arXiv:2511.22699, by Alibaba): one stream of text and image tokens.

It is distilled to run without guidance: there is no unconditional row, and neither the guidance
scale nor a negative prompt has an effect. Qwen3 encodes the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from runnables.checkpoints.checkpoint import Checkpoint
from runnables.families.base import Conditioning, Size
from runnables.families.distilled import TOKENS, DistilledFlow
from runnables.families.text.prompts import Embedding, Text
from runnables.families.text.qwen import QwenEncoder


class ZImage(DistilledFlow):
    """The model of this family is Turbo, which takes no guidance scale either."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        parts = checkpoint.components
        self._qwen = QwenEncoder(parts["tokenizer"], parts["text_encoder"], device, TOKENS)
        super().__init__(checkpoint, device, dtype, self._qwen)
        self.noise_dtype = torch.float32  # as diffusers' pipeline, which keeps the latents in it

    # -- text -------------------------------------------------------------------------------

    def encode(self, texts: Sequence[Text]) -> list[Embedding]:
        rows = self._qwen.encode([text.prompt for text in texts])
        return [Embedding(row.to(self.dtype)) for row in rows]

    def condition(
        self, embedding: Embedding, size: Size, guidance_scale: float, *, negative: bool
    ) -> Conditioning:
        """Prompts of every length share a call: the rest of TOKENS is cut off again there."""
        text = embedding.hidden_states
        return Conditioning(pad(text, (0, 0, 0, TOKENS - len(text))), tokens=(len(text),))

    # -- the transformer --------------------------------------------------------------------

    def denoise(
        self, sample: Tensor, timesteps: Tensor, conditioning: Conditioning, **extra: Any
    ) -> Tensor:
        """One transformer call; its output points from noise to image, the sampler's back."""
        texts = zip(conditioning.hidden_states, conditioning.tokens, strict=True)
        output = self.denoiser(
            [row.unsqueeze(1) for row in sample.to(self.dtype)],
            (1000 - timesteps) / 1000,
            [row[:tokens] for row, tokens in texts],
            return_dict=False,
        )[0]
        return -torch.stack([row.squeeze(1) for row in output])
