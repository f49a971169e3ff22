"""Textual inversion files are read: diffusers' and the WebUI's with one tensor, SDXL's with two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from runnables.errors import InvalidInput
from runnables.extensions.textual_inversion.vocabulary import Concept, words

if TYPE_CHECKING:
    from runnables.families.text.clip import ClipEncoder
    from runnables.families.unet import UNetFamily

PAIR = ("clip_l", "clip_g")  # SDXL's encoders, in the model's order


def read(name: str, path: Path, family: UNetFamily) -> Concept:
    """Return an embedding made for this model's text encoders.

    Raises:
        InvalidInput: the file is no embedding, is for another model, or its name is no new word.
    """
    try:
        tensors = _tensors(name, path, family)
    except (OSError, ValueError, SafetensorError) as error:
        raise _refusal(name, f"cannot be read: {error}") from error
    pairs = zip(tensors, family.encoders, strict=True)
    vectors = tuple(_fitted(name, tensor, encoder) for tensor, encoder in pairs)
    if len({len(each) for each in vectors}) > 1:
        raise _refusal(name, f"has not as many vectors in {PAIR[0]} as in {PAIR[1]}")
    _check_words(name, len(vectors[0]), family)
    return Concept(name, vectors)


def _tensors(name: str, path: Path, family: UNetFamily) -> list[Tensor]:
    """Read one tensor for each text encoder; do not read other tensors, which may be large."""
    with safe_open(path, framework="pt") as file:
        keys = list(file.keys())
        if len(keys) > len(PAIR) or not keys:
            raise _refusal(name, f"is no embedding: the file holds {len(keys)} tensors")
        wanted = _wanted(keys, family)
        if len(wanted) != len(family.encoders):
            raise _refusal(name, f"is for another model: the file holds {', '.join(keys)}")
        return [file.get_tensor(key) for key in wanted]


def _wanted(keys: list[str], family: UNetFamily) -> list[str]:
    """Return the tensors that the model needs: a refiner has only the second of SDXL's encoders."""
    if set(keys) != set(PAIR):
        return keys
    large = "text_encoder_2" in family.checkpoint.components
    return list(PAIR[-len(family.encoders) :] if large else PAIR)


def _fitted(name: str, tensor: Tensor, encoder: ClipEncoder) -> Tensor:
    """Return the vectors as (n, hidden), as the encoder's own are."""
    own: Tensor = encoder.model.get_input_embeddings().weight
    with torch.inference_mode():
        vectors = tensor.to(own.dtype)
        vectors = vectors.unsqueeze(0) if vectors.ndim == 1 else vectors
        if vectors.ndim != 2 or vectors.shape[1] != own.shape[1]:
            shape = "x".join(map(str, tensor.shape))
            raise _refusal(name, f"is for another model: {shape}, not of width {own.shape[1]}")
        if not 1 <= len(vectors) <= encoder.room:
            raise _refusal(name, f"has {len(vectors)} vectors, not 1 to {encoder.room}")
        if not vectors.isfinite().all():
            raise _refusal(name, "holds values that are not finite")
        return vectors.to(encoder.device)


def _check_words(name: str, vectors: int, family: UNetFamily) -> None:
    """Check that no word is a token already, because its meaning would change."""
    if name != name.strip():
        raise _refusal(name, "cannot be a word: rename the file")
    for encoder in family.encoders:
        for word in words(name, vectors):
            if encoder.tokenizer.backend_tokenizer.token_to_id(word) is not None:
                raise _refusal(name, f"cannot be a word: {word!r} is a token of this model already")


def _refusal(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"the embedding {name!r} {why}", loc=("embeddings",))
