"""Qwen3 (arXiv:2505.09388), a language model, encodes prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from runnables.families.text import tokenizing


class QwenEncoder:
    """A Qwen3 model with its tokenizer; the prompt is what a user says in its chat.

    Args:
        device: that the model runs on.
        length: tokens of a prompt at most, with those of the chat around it.
        layers: whose states are taken, side by side along the features.
        thinks: whether the chat's template lets the model think before it answers.
    """

    def __init__(
        self,
        tokenizer: Any,
        model: Any,
        device: torch.device,
        length: int,
        layers: Sequence[int] = (-2,),
        *,
        thinks: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._device = device
        self._length = length
        self._layers = layers
        self._thinks = thinks

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Encode each prompt to (its tokens, features)."""
        rows, mask = self.states(prompts)
        return [row[own] for row, own in zip(rows, mask, strict=True)]

    def states(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode to (N, length, features), and (N, length) bool: what belongs to each prompt."""
        said = [self._said(prompt) for prompt in prompts]
        tokens = tokenizing.tokens_of(self._tokenizer, said, self._length, self._device)
        mask = tokens.attention_mask.bool()
        output = self._model(
            input_ids=tokens.input_ids, attention_mask=mask, output_hidden_states=True
        )
        return torch.cat([output.hidden_states[layer] for layer in self._layers], dim=-1), mask

    def count(self, prompt: str) -> int:
        """Return the tokens of a prompt, with those of the chat around it."""
        return tokenizing.count(self._tokenizer, self._said(prompt))

    def _said(self, prompt: str) -> str:
        said: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=self._thinks,
        )
        return said
