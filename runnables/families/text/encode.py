"""CLIP embeddings: plain prompts are encoded in batches, long and weighted ones as compel does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from runnables.families.text.clip import ClipEncoder, added
from runnables.families.text.prompts import Embedding, Text


def encode(
    encoders: Sequence[ClipEncoder], texts: Sequence[Text], dtype: torch.dtype, *, pooled: bool
) -> list[Embedding]:
    """Encode every text with all encoders, side by side along the features.

    Plain texts that fit are encoded in one call of each encoder for every `clip_skip` and every set
    of additions.

    Args:
        pooled: keep the last encoder's projection.
    """
    done: dict[Text, Embedding] = {}
    for additions in {text.additions: None for text in texts}:
        alike = [text for text in texts if text.additions == additions]
        knowing = [encoder.knowing(additions, i) for i, encoder in enumerate(encoders)]
        with added(encoders, additions):
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
    """Return `embedding` of at least so many tokens: append encodings of "", as compel does."""
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
