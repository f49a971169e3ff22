"""Textual inversion (arXiv:2208.01618) gives a request words that stand for learned vectors.

Tokenizer and text encoder stay as they are. A request's words are added to a twin of the tokenizer,
and hooks on the token embedding layer look their vectors up while a call of that request runs.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from runnables.errors import InvalidInput
from runnables.families.text.prompts import Text

MAX_VECTORS = 1000  # that one prompt may stand for: each 75 of them are a call of the text encoder


@dataclass(frozen=True, eq=False)
class Concept:
    """A concept is what a word stands for, on a model's device and in its dtype.

    Attributes:
        vectors: for each text encoder (n, hidden), in the model's order.
        number: no other concept has it, also when the same file is loaded again.
    """

    name: str
    vectors: tuple[Tensor, ...]
    number: int = dataclasses.field(default_factory=count().__next__)

    @property
    def nbytes(self) -> int:
        return sum(vectors.nbytes for vectors in self.vectors)

    def __len__(self) -> int:
        return len(self.vectors[0])

    @property
    def words(self) -> list[str]:
        """Return one token per vector, named as diffusers does."""
        return words(self.name, len(self))


#: the concepts of one request
Concepts = tuple[Concept, ...]


def words(name: str, vectors: int) -> list[str]:
    """Return `name`, `name_1`, `name_2` and so on."""
    return [name, *(f"{name}_{i}" for i in range(1, vectors))]


class Vocabulary:
    """A vocabulary has a text encoder's tokens, followed by those of concepts.

    Args:
        index: which of the model's text encoders it is.
    """

    def __init__(self, tokenizer: Any, concepts: Concepts, index: int) -> None:
        known = [word for concept in concepts for word in concept.words]
        self.tokenizer = _twin(tokenizer)
        self.tokenizer.add_tokens(known)
        self._first = len(tokenizer)
        self._vectors = torch.cat([concept.vectors[index] for concept in concepts])
        self._spans = _spans(concepts, self._first)
        self._meant = {concept.name.lower(): " ".join(concept.words) for concept in concepts}
        longest_first = sorted(known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)

    def convert(self, prompt: str) -> str:
        """Return the prompt with every name followed by its further words.

        diffusers' function takes a name for the beginning of another, forgets the further words of
        a name with capitals or in other letter case, and takes 0.1 s for one of 75 vectors.
        """
        return self._pattern.sub(
            lambda found: self._meant.get(found.group().lower(), found.group()), prompt
        )

    def expand(self, ids: Iterable[int]) -> list[int]:
        """Return the token ids with a name's followed by those of its further words."""
        return [part for id in ids for part in self._spans.get(id, (id,))]

    @contextmanager
    def spoken(self, model: Any) -> Iterator[None]:
        """Let the model know the words while the context is open."""
        layer: nn.Module = model.get_input_embeddings()
        requested: list[Tensor] = []

        def before(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            requested.append(inputs[0])
            return (inputs[0].clamp(max=self._first - 1), *inputs[1:])

        def after(_layer: nn.Module, _given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            places = requested.pop() - self._first
            vectors = self._vectors[places.clamp(min=0)]
            return torch.where((places >= 0).unsqueeze(-1), vectors, output)

        handles = [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def check(concepts: Sequence[Concept], texts: Mapping[str, Text]) -> None:
    """Check that these concepts can be used together, in texts (by field) of bounded length.

    Raises:
        InvalidInput: naming the field.
    """
    taken: set[str] = set()
    for concept in concepts:
        own = {word.lower() for word in concept.words}
        if own & taken:
            raise InvalidInput(
                f"the embedding {concept.name!r} has words in common with another one",
                loc=("embeddings",),
            )
        taken |= own
    for field, text in texts.items():
        vectors = sum(len(one) * text.count(one.name) for one in concepts)
        if vectors > MAX_VECTORS:
            raise InvalidInput(
                f"the embeddings of {field} come to {vectors} vectors; {MAX_VECTORS} are the most",
                loc=(field,),
            )


def _spans(concepts: Concepts, first: int) -> dict[int, range]:
    """Return the id of every name -> the ids of all its words."""
    spans = {}
    for concept in concepts:
        spans[first] = range(first, first + len(concept))
        first += len(concept)
    return spans


def _twin(tokenizer: Any) -> Any:
    """Copy a tokenizer to add words to; all else is shared.

    This takes 0.1 ms, where a deep copy takes 0.2 s.
    """
    from tokenizers import Tokenizer

    backend = tokenizer.backend_tokenizer
    twin = Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        setattr(twin, part, getattr(backend, part))
    twin.add_tokens([token for _, token in sorted(backend.get_added_tokens_decoder().items())])
    outer = copy.copy(tokenizer)
    outer._tokenizer = twin
    return outer
