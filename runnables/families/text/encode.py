"""CLIP embeddings: plain prompts are encoded in batches, long and weighted ones as compel does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat

import torch

from runnables.families.text.clip import ClipEncoder, added
from runnables.families.text.prompts import Embedding, Text, TextAddition, grouped


def encode(
    encoders: Sequence[ClipEncoder], texts: Sequence[Text], dtype: torch.dtype, *, pooled: bool
) -> list[Embedding]:
    """Encode every text with all encoders, side by side along the features.

    Plain texts that fit are encoded in one call of each encoder for every `clip_skip` and every set
    of additions.

    Args:
        pooled: keep the last encoder's projection.
    """

    def of_additions(
        additions: Sequence[TextAddition], alike: Sequence[Text]
    ) -> Sequence[Embedding]:
        knowing = [encoder.knowing(additions, i) for i, encoder in enumerate(encoders)]
        with added(encoders, additions):
            return _encoded(knowing, alike, dtype, pooled=pooled)

    return grouped(texts, lambda text: text.additions, of_additions)


def _encoded(
    encoders: Sequence[ClipEncoder], texts: Sequence[Text], dtype: torch.dtype, *, pooled: bool
) -> list[Embedding]:
    def is_plain(text: Text) -> bool:
        return text.syntax == "plain" and all(encoder.fits(text.prompt) for encoder in encoders)

    def of_skip(clip_skip: int | None, alike: Sequence[Text]) -> Iterable[Embedding]:
        if clip_skip is None:
            return [_composed(encoders, text, dtype, pooled=pooled) for text in alike]
        prompts = [text.prompt for text in alike]
        outputs = [encoder.encode(prompts, clip_skip) for encoder in encoders]
        rows = torch.cat([hidden for hidden, _ in outputs], dim=-1).to(dtype)
        last = outputs[-1][1].to(dtype)
        return map(Embedding, rows, last if pooled else repeat(None))

    skips = {text: text.clip_skip if is_plain(text) else None for text in texts}
    return grouped(texts, skips.__getitem__, of_skip)


def lengthen(embedding: Embedding, tokens: int, filler: Embedding) -> Embedding:
    """Return `embedding` of at least so many tokens: append encodings of "", as compel does."""
    missing = tokens - len(embedding.hidden_states)
    if missing <= 0:
        return embedding
    chunks = [filler.hidden_states] * (missing // len(filler.hidden_states))
    return Embedding(torch.cat([embedding.hidden_states, *chunks]), embedding.pooled)


def _composed(
    encoders: Sequence[ClipEncoder], text: Text, dtype: torch.dtype, *, pooled: bool
) -> Embedding:
    """Encode a weighted or long text; its pooled projection has no weights and 77 tokens only."""
    from runnables.families.text.weighting import compose  # compel's imports take a second

    parts = [compose(encoder, text.prompt, text.clip_skip, text.syntax) for encoder in encoders]
    projection = encoders[-1].encode([text.prompt], 0)[1][0].to(dtype) if pooled else None
    longest = max(len(part) for part in parts)
    even = []
    for encoder, part in zip(encoders, parts, strict=True):
        empty = encoder.encode([""], text.clip_skip)[0][0]
        even.append(lengthen(Embedding(part), longest, Embedding(empty)).hidden_states)
    return Embedding(torch.cat(even, dim=-1).to(dtype), projection)
