"""Qwen3 (arXiv:2505.09388), a language model, encodes prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from runnables.families.text import tokenizing


@dataclass(eq=False)
class QwenEncoder:
    """A Qwen3 model with its tokenizer; the prompt is what a user says in its chat.

    Args:
        device: that the model runs on.
        length: tokens of a prompt at most, with those of the chat around it.
        layers: whose states are taken, side by side along the features.
        thinks: whether the chat's template lets the model think before it answers.
    """

    tokenizer: Any
    model: Any
    device: torch.device
    length: int
    layers: Sequence[int] = (-2,)
    _: KW_ONLY
    thinks: bool = True

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Encode each prompt to (its tokens, features)."""
        rows, mask = self.states(prompts)
        return [row[own] for row, own in zip(rows, mask, strict=True)]

    def states(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode to (N, length, features), and (N, length) bool: what belongs to each prompt."""
        said = [self._said(prompt) for prompt in prompts]
        tokens = tokenizing.tokens_of(self.tokenizer, said, self.length, self.device)
        mask = tokens.attention_mask.bool()
        output = self.model(
            input_ids=tokens.input_ids, attention_mask=mask, output_hidden_states=True
        )
        return torch.cat([output.hidden_states[layer] for layer in self.layers], dim=-1), mask

    def count(self, prompt: str) -> int:
        """Return the tokens of a prompt, with those of the chat around it."""
        return tokenizing.count(self.tokenizer, self._said(prompt))

    def _said(self, prompt: str) -> str:
        said: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=self.thinks,
        )
        return said
