"""T5's encoder (arXiv:1910.10683) is the long text encoder of Stable Diffusion 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from runnables.families.text.tokenizing import TOKENIZING


class T5Encoder:
    """A T5 encoder has a tokenizer and its T5EncoderModel.

    Args:
        length: tokens of every prompt; longer prompts are cut, as diffusers cuts them.
    """

    def __init__(self, tokenizer: Any, model: Any, length: int) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._length = length

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Encode to (N, length, features); padding is encoded, too, without an attention mask."""
        with TOKENIZING:
            tokens = self._tokenizer(
                list(prompts),
                padding="max_length",
                max_length=self._length,
                truncation=True,
                add_special_tokens=True,
                return_tensors="pt",
            )
        states: Tensor = self._model(tokens.input_ids.to(self._model.device))[0]
        return states

    def count(self, prompt: str) -> int:
        """Return the tokens of a prompt, its end mark included."""
        with TOKENIZING:
            return len(self._tokenizer(prompt).input_ids)


def no_text(prompts: int, length: int, features: int, like: Tensor) -> Tensor:
    """Return zeros (prompts, length, features), which stand for a T5 that is left out."""
    return torch.zeros(prompts, length, features, device=like.device, dtype=like.dtype)
