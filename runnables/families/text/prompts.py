"""Prompts and their encodings are described here, whatever encodes them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from torch import Tensor

from runnables.checkpoints.checkpoint import Checkpoint
from runnables.parameters import Parameters, Syntax

K = TypeVar("K")


class Vocabulary(Protocol):
    """A vocabulary has a tokenizer's further words, and what they stand for in one text encoder."""

    tokenizer: Any

    def convert(self, prompt: str) -> str:
        """Return the prompt with every further word followed by the rest of its tokens."""
        ...

    def expand(self, ids: Iterable[int]) -> list[int]:
        """Return token ids with every further word's followed by the rest of its tokens."""
        ...

    def spoken(self, model: Any) -> AbstractContextManager[None]:
        """Let the text encoder know the words while the context is open."""
        ...


class TextAddition(Protocol):
    """An extension adds this to a prompt's encoding. It is hashable: prompts are sorted by it."""

    @property
    def key(self) -> Hashable:
        """Return what tells it from others without its tensors: caches keep that."""
        ...

    def around(self, component: str, model: Any) -> AbstractContextManager[None]:
        """Add it to calls of the text encoder of this name while the context is open."""
        ...

    def vocabulary(self, tokenizer: Any, index: int) -> Vocabulary | None:
        """Return the words it adds to the model's `index`-th text encoder.

        Return None where it adds none.
        """
        ...


@dataclass(frozen=True)
class Text:
    """A text is a prompt with all that its encoding depends on; "" stands for no negative prompt.

    Attributes:
        clip_skip: text encoder layers left out at the end, counted as diffusers does.
    """

    prompt: str
    syntax: Syntax = "plain"
    clip_skip: int = 0
    additions: tuple[TextAddition, ...] = ()

    @property
    def key(self) -> Hashable:
        """Return what tells it from others and holds nothing that the additions have loaded."""
        return self.prompt, self.syntax, self.clip_skip, tuple(one.key for one in self.additions)

    @property
    def is_empty(self) -> bool:
        return not self.prompt

    def count(self, word: str) -> int:
        """Return how often a word stands in it, in lower or upper case."""
        return self.prompt.lower().count(word.lower())

    def emptied(self) -> Text:
        """Return the text that lengthens this one's encoding: "", encoded in the same way."""
        return replace(self, prompt="", syntax="plain")


def texts_of(parameters: Parameters, additions: tuple[TextAddition, ...] = ()) -> dict[str, Text]:
    """Return a request's prompt and its negative prompt, which skips no layers, by field."""
    syntax = parameters.prompt_syntax
    return {
        "prompt": Text(parameters.prompt, syntax, parameters.clip_skip, additions),
        "negative_prompt": Text(parameters.negative_prompt, syntax, 0, additions),
    }


def grouped(
    texts: Sequence[Text],
    key: Callable[[Text], K],
    encode: Callable[[K, list[Text]], Iterable[Embedding]],
) -> list[Embedding]:
    """Return the encoding of each text, where one call encodes all texts of a key."""
    done: dict[Text, Embedding] = {}
    for one in dict.fromkeys(map(key, texts)):
        alike = [text for text in texts if key(text) == one]
        done |= zip(alike, encode(one, alike), strict=True)
    return [done[text] for text in texts]


def hint_of(parameters: Parameters, checkpoint: Checkpoint) -> str | None:
    """Return what a caller should know about an image of this request's prompt, if anything."""
    known = checkpoint.vocabulary
    return known.hint(parameters.prompt) if known else None


@dataclass(frozen=True, eq=False)
class Embedding:
    """An encoded prompt has `hidden_states` (tokens, features); `pooled` is (features,) or None."""

    hidden_states: Tensor
    pooled: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return self.hidden_states.nbytes + (0 if self.pooled is None else self.pooled.nbytes)
