"""T5's encoder (arXiv:1910.10683) is the long text encoder of Stable Diffusion 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runnables.families.text import tokenizing


@dataclass(eq=False)
class T5Encoder:
    """A T5 encoder has a tokenizer and its T5EncoderModel.

    Args:
        device: that the model runs on.
        length: tokens of every prompt; longer prompts are cut, as diffusers cuts them.
    """

    tokenizer: Any
    model: Any
    device: torch.device
    length: int

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Encode to (N, length, features); padding is encoded, too, without an attention mask."""
        tokens = tokenizing.tokens_of(self.tokenizer, prompts, self.length, self.device)
        states: Tensor = self.model(tokens.input_ids)[0]
        return states

    def count(self, prompt: str) -> int:
        """Return the tokens of a prompt, its end mark included."""
        return tokenizing.count(self.tokenizer, prompt)
