"""Prompts to embeddings: plain ones in batches, long and weighted ones with compel's arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from runnables.extensions.lora.layers import LoraSet, applied, everywhere
from runnables.extensions.textual_inversion.vocabulary import Concepts, Vocabulary
from runnables.parameters import Syntax

COMPONENTS = ("text_encoder", "text_encoder_2")  # as model_index.json and LoRA files name them


@dataclass(frozen=True)
class Text:
    """A prompt with everything that its encoding depends on; "" stands for no negative prompt.

    Attributes:
        clip_skip: text encoder layers left out at the end, counted as diffusers does.
    """

    prompt: str
    syntax: Syntax = "plain"
    clip_skip: int = 0
    loras: LoraSet = ()
    concepts: Concepts = ()

    def emptied(self) -> Text:
        """What lengthens it: "", encoded as it is."""
        return replace(self, prompt="", syntax="plain", concepts=())


@dataclass(frozen=True, eq=False)
class Embedding:
    """A prompt, encoded: `hidden_states` (tokens, features); `pooled` (features,) for SDXL."""

    hidden_states: Tensor
    pooled: Tensor | None = None


class ClipEncoder:
    """A tokenizer and its CLIP text model.

    Args:
        normed: hidden states go through the final norm (SD 1 and 2); else they are those before
            the last layer (SDXL).
        vocabulary: the words it knows beside the tokenizer's.
    """

    def __init__(
        self, tokenizer: Any, model: Any, *, normed: bool, vocabulary: Vocabulary | None = None
    ) -> None:
        self.tokenizer = vocabulary.tokenizer if vocabulary else tokenizer
        self.model = model
        self.vocabulary = vocabulary
        self._normed = normed

    def knowing(self, concepts: Concepts, index: int) -> ClipEncoder:
        """This one, the pipeline's `index`-th, for prompts in which these words have a meaning."""
        if not concepts:
            return self
        vocabulary = Vocabulary(self.tokenizer, concepts, index)
        return ClipEncoder(self.tokenizer, self.model, normed=self._normed, vocabulary=vocabulary)

    @property
    def deepest_skip(self) -> int:
        """The largest `clip_skip` this encoder has layers for."""
        return int(self.model.config.num_hidden_layers) - (0 if self._normed else 1)

    @property
    def room(self) -> int:
        """Tokens of a prompt that fit: the model's length is 77, two of them marks."""
        return int(self.tokenizer.model_max_length) - 2

    def fits(self, prompt: str) -> bool:
        """Whether the prompt's tokens are within the model's length."""
        return len(self.tokenizer.tokenize(self._converted(prompt))) <= self.room

    def encode(self, prompts: Sequence[str], clip_skip: int) -> tuple[Tensor, Tensor]:
        """(N, 77, features) and the model's first output, (N, ...); what is too long is cut."""
        tokens = self.tokenizer(
            [self._converted(prompt) for prompt in prompts],
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.model.device)
        masked = getattr(self.model.config, "use_attention_mask", False)
        return self.forward(tokens.input_ids, tokens.attention_mask if masked else None, clip_skip)

    def forward(self, ids: Tensor, mask: Tensor | None, clip_skip: int) -> tuple[Tensor, Tensor]:
        """Token ids (N, 77) -> hidden states (N, 77, features), and the model's first output."""
        with self.vocabulary.spoken(self.model) if self.vocabulary else nullcontext():
            return self._forward(ids, mask, clip_skip)

    def _forward(self, ids: Tensor, mask: Tensor | None, clip_skip: int) -> tuple[Tensor, Tensor]:
        if self._normed and clip_skip == 0:
            first: Tensor = self.model(ids, attention_mask=mask)[0]
            return first, first
        output = self.model(ids, attention_mask=mask, output_hidden_states=True)
        if not self._normed:
            return output.hidden_states[-(clip_skip + 2)], output[0]
        inner = getattr(self.model, "text_model", self.model)  # nested before transformers 5
        return inner.final_layer_norm(output.hidden_states[-(clip_skip + 1)]), output[0]

    def _converted(self, prompt: str) -> str:
        return self.vocabulary.convert(prompt) if self.vocabulary else prompt


def encode(
    encoders: Sequence[ClipEncoder], texts: Sequence[Text], dtype: torch.dtype, *, pooled: bool
) -> list[Embedding]:
    """Every text encoded by all encoders, side by side along the features.

    Plain texts that fit are encoded in one call of each encoder for every `clip_skip`, set of LoRAs
    and set of concepts.

    Args:
        pooled: keep the last encoder's projection.
    """
    done: dict[Text, Embedding] = {}
    for loras, concepts in {(text.loras, text.concepts): None for text in texts}:
        alike = [text for text in texts if (text.loras, text.concepts) == (loras, concepts)]
        knowing = [encoder.knowing(concepts, i) for i, encoder in enumerate(encoders)]
        with ExitStack() as stack:
            for name, encoder in zip(COMPONENTS, encoders, strict=False):
                active = everywhere(loras, encoder.model.device)
                stack.enter_context(applied(encoder.model, name, active))
            done |= _encoded(knowing, alike, dtype, pooled=pooled)
    return [done[text] for text in texts]


def _encoded(
    encoders: Sequence[ClipEncoder], texts: Sequence[Text], dtype: torch.dtype, *, pooled: bool
) -> dict[Text, Embedding]:
    done: dict[Text, Embedding] = {}
    plain = [text for text in texts if _is_plain(encoders, text)]
    for clip_skip in {text.clip_skip for text in plain}:
        alike = [text for text in plain if text.clip_skip == clip_skip]
        prompts = [text.prompt for text in alike]
        outputs = [encoder.encode(prompts, clip_skip) for encoder in encoders]
        rows = torch.cat([hidden for hidden, _ in outputs], dim=-1).to(dtype)
        last = outputs[-1][1].to(dtype)
        for i, text in enumerate(alike):
            done[text] = Embedding(rows[i], last[i] if pooled else None)
    for text in texts:
        if text not in done:
            done[text] = _composed(encoders, text, dtype, pooled=pooled)
    return done


def lengthen(embedding: Embedding, tokens: int, filler: Embedding) -> Embedding:
    """`embedding` of at least so many tokens: encodings of "" are appended, as compel does."""
    missing = tokens - len(embedding.hidden_states)
    if missing <= 0:
        return embedding
    chunks = [filler.hidden_states] * (missing // len(filler.hidden_states))
    return Embedding(torch.cat([embedding.hidden_states, *chunks]), embedding.pooled)


def _is_plain(encoders: Iterable[ClipEncoder], text: Text) -> bool:
    return text.syntax == "plain" and all(encoder.fits(text.prompt) for encoder in encoders)


def _composed(
    encoders: Sequence[ClipEncoder], text: Text, dtype: torch.dtype, *, pooled: bool
) -> Embedding:
    """A weighted or long text. The pooled projection knows no weights, and the first 77 tokens."""
    from runnables.families.text.weighting import compose  # compel's imports take a second

    parts = [compose(encoder, text.prompt, text.clip_skip, text.syntax) for encoder in encoders]
    projection = encoders[-1].encode([text.prompt], 0)[1][0].to(dtype) if pooled else None
    longest = max(len(part) for part in parts)
    even = []
    for encoder, part in zip(encoders, parts, strict=True):
        empty = encoder.encode([""], text.clip_skip)[0][0]
        even.append(lengthen(Embedding(part), longest, Embedding(empty)).hidden_states)
    return Embedding(torch.cat(even, dim=-1).to(dtype), projection)
