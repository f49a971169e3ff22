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
from runnables.errors import InvalidInput
from runnables.families.base import Conditioning, Levels, Size, Traits
from runnables.families.latent_diffusion import LatentDiffusion, shift_of
from runnables.families.text.prompts import Embedding, Text
from runnables.families.text.qwen import QwenEncoder
from runnables.samplers.names import prediction_of

TOKENS = 512  # diffusers' max_sequence_length
SAMPLE_SIZE = 128  # latents along a side of the native size
FEATURES = frozenset({"hires"})


class ZImage(LatentDiffusion):
    """The model of this family is Turbo."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(checkpoint, device, dtype)
        parts = checkpoint.components
        self._qwen = QwenEncoder(parts["tokenizer"], parts["text_encoder"], TOKENS)
        self.traits = Traits(
            family=checkpoint.family,
            latent_channels=self.latent_channels,
            scale_factor=self.scale_factor,
            size_multiple=2 * self.scale_factor,
            native_size=self.native_size(SAMPLE_SIZE),
            prediction=prediction_of(checkpoint.scheduler_config),
            features=FEATURES,
            distilled_guidance=True,
        )

    # -- text -------------------------------------------------------------------------------

    def check(self, prompts: dict[str, Text]) -> None:
        """A prompt that is not read to its end is refused."""
        if self._qwen.count(prompts["prompt"].prompt) > TOKENS:
            raise InvalidInput(
                f"prompt is longer than the {TOKENS} tokens that this model reads", loc=("prompt",)
            )

    def encode(self, texts: Sequence[Text]) -> list[Embedding]:
        rows = self._qwen.encode([text.prompt for text in texts])
        return [Embedding(row.to(self.dtype)) for row in rows]

    def lengthen(self, embedding: Embedding, tokens: int, filler: Embedding) -> Embedding:
        return embedding  # `condition` makes one length of all

    def condition(
        self, embedding: Embedding, size: Size, guidance_scale: float, *, negative: bool
    ) -> Conditioning:
        """Prompts of every length share a call: the rest of TOKENS is cut off again there."""
        text = embedding.hidden_states
        tokens = torch.tensor(len(text), device=text.device)
        return Conditioning(pad(text, (0, 0, 0, TOKENS - len(text))), tokens=tokens)

    # -- the transformer --------------------------------------------------------------------

    def levels(self, size: Size, steps: int) -> Levels:
        """Evenly spaced down to one step's share, and shifted by the image's tokens."""
        sigmas = torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()
        tokens = self.traits.area(size) // 4
        return Levels(shift_of(tokens, self.checkpoint.scheduler_config, most=1.15), tuple(sigmas))

    def denoise(
        self, sample: Tensor, timesteps: Tensor, conditioning: Conditioning, **extra: Any
    ) -> Tensor:
        """One transformer call; its output points from noise to image, the sampler's back."""
        assert conditioning.tokens is not None
        texts = zip(conditioning.hidden_states, conditioning.tokens.tolist(), strict=True)
        output = self.denoiser(
            [row.unsqueeze(1) for row in sample.to(self.dtype)],
            (1000 - timesteps.to(self.dtype)) / 1000,
            [row[:tokens] for row, tokens in texts],
            return_dict=False,
        )[0]
        return -torch.stack([row.squeeze(1) for row in output])
