"""Stable Diffusion 1.x and 2.x: one CLIP text encoder (arXiv:2112.10752)."""

from __future__ import annotations

from collections.abc import Sequence

from runnables.pipelines.base import Embedding, Pipeline, tokenize


class StableDiffusion(Pipeline):
    """Epsilon or v-prediction alike: what the UNet predicts is the sampler's affair."""

    def encode_prompts(self, prompts: Sequence[str]) -> list[Embedding]:
        (tokenizer,), (encoder,) = self.checkpoint.tokenizers, self.checkpoint.text_encoders
        tokens = tokenize(tokenizer, prompts).to(self.device)
        masked = getattr(encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask if masked else None
        hidden_states = encoder(tokens.input_ids, attention_mask=mask)[0].to(self.dtype)
        return [Embedding(row) for row in hidden_states]
