"""This module has CLIP text encoders, each with its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from runnables.families.text import tokenizing
from runnables.families.text.prompts import TextAddition, Vocabulary

if TYPE_CHECKING:
    from runnables.checkpoints.checkpoint import Checkpoint


@dataclass(eq=False)
class ClipEncoder:
    """A CLIP encoder has a tokenizer and its CLIP text model.

    Args:
        component: its name in model_index.json.
        device: that it runs on; the weights of a streamed model lie elsewhere between calls.
        normed: hidden states go through the final norm (SD 1 and 2); else they are those before
            the last layer (SDXL, SD 3).
        vocabulary: the words it knows beside the tokenizer's.
    """

    component: str
    tokenizer: Any
    model: Any
    device: torch.device
    _: KW_ONLY
    normed: bool
    vocabulary: Vocabulary | None = None

    def knowing(self, additions: Sequence[TextAddition], index: int) -> ClipEncoder:
        """Return this encoder, the model's `index`-th, for prompts with further words."""
        for addition in additions:
            if vocabulary := addition.vocabulary(self.tokenizer, index):
                return replace(self, tokenizer=vocabulary.tokenizer, vocabulary=vocabulary)
        return self

    @property
    def deepest_skip(self) -> int:
        """Return the largest `clip_skip` this encoder has layers for."""
        return int(self.model.config.num_hidden_layers) - (0 if self.normed else 1)

    @property
    def room(self) -> int:
        """Return the tokens of a prompt that fit: the model's length is 77, two of them marks."""
        return int(self.tokenizer.model_max_length) - 2

    def fits(self, prompt: str) -> bool:
        """Return whether the prompt's tokens are within the model's length."""
        converted = self._converted(prompt)
        return tokenizing.count(self.tokenizer, converted, marks=False) <= self.room

    def encode(self, prompts: Sequence[str], clip_skip: int) -> tuple[Tensor, Tensor]:
        """Encode to (N, 77, features) and the model's first output, (N, ...).

        Cut what is too long.
        """
        tokens = self._tokens([self._converted(prompt) for prompt in prompts])
        masked = getattr(self.model.config, "use_attention_mask", False)
        return self.forward(tokens.input_ids, tokens.attention_mask if masked else None, clip_skip)

    def forward(self, ids: Tensor, mask: Tensor | None, clip_skip: int) -> tuple[Tensor, Tensor]:
        """Turn token ids (N, 77) into hidden states (N, 77, features) and the first output."""
        needed = not self.normed or clip_skip != 0
        with self.vocabulary.spoken(self.model) if self.vocabulary else nullcontext():
            output = self.model(ids, attention_mask=mask, output_hidden_states=needed)
        if not needed:
            return output[0], output[0]
        if not self.normed:
            return output.hidden_states[-(clip_skip + 2)], output[0]
        inner = getattr(self.model, "text_model", self.model)  # nested before transformers 5
        return inner.final_layer_norm(output.hidden_states[-(clip_skip + 1)]), output[0]

    def pooled(self, prompts: Sequence[str]) -> Tensor:
        """(N, features): the state at the end of each prompt; what is too long is cut."""
        states: Tensor = self.model(self._tokens(prompts).input_ids).pooler_output
        return states

    def _tokens(self, prompts: Sequence[str]) -> Any:
        length = self.tokenizer.model_max_length
        return tokenizing.tokens_of(self.tokenizer, prompts, length, self.device)

    def _converted(self, prompt: str) -> str:
        return self.vocabulary.convert(prompt) if self.vocabulary else prompt


def clip_encoders(
    checkpoint: Checkpoint, device: torch.device, *, normed: bool
) -> tuple[ClipEncoder, ...]:
    """Return a checkpoint's CLIP text encoders, in the order of their numbers."""
    parts = checkpoint.components
    return tuple(
        ClipEncoder(
            f"text_encoder{n}",
            parts[f"tokenizer{n}"],
            parts[f"text_encoder{n}"],
            device,
            normed=normed,
        )
        for n in ("", "_2")
        if f"text_encoder{n}" in parts
    )


@contextmanager
def added(encoders: Sequence[ClipEncoder], additions: Sequence[TextAddition]) -> Iterator[None]:
    """Have these encoders have these additions while the context is open."""
    with ExitStack() as stack:
        for addition in additions:
            for encoder in encoders:
                stack.enter_context(addition.around(encoder.component, encoder.model))
        yield
