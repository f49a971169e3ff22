"""T5's encoder (arXiv:1910.10683) is the long text encoder of Stable Diffusion 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from runnables.families.text import tokenizing


class T5Encoder:
    """A T5 encoder has a tokenizer and its T5EncoderModel.

    Args:
        device: that the model runs on.
        length: tokens of every prompt; longer prompts are cut, as diffusers cuts them.
    """

    def __init__(self, tokenizer: Any, model: Any, device: torch.device, length: int) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._device = device
        self._length = length

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Encode to (N, length, features); padding is encoded, too, without an attention mask."""
        tokens = tokenizing.tokens_of(self._tokenizer, prompts, self._length, self._device)
        states: Tensor = self._model(tokens.input_ids)[0]
        return states

    def count(self, prompt: str) -> int:
        """Return the tokens of a prompt, its end mark included."""
        return tokenizing.count(self._tokenizer, prompt)
