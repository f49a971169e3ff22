"""Prompts and their encodings are described here, whatever encodes them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from runnables.parameters import Syntax


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

    def emptied(self) -> Text:
        """Return the text that lengthens this one's encoding: "", encoded in the same way."""
        return replace(self, prompt="", syntax="plain")


@dataclass(frozen=True, eq=False)
class Embedding:
    """An encoded prompt has `hidden_states` (tokens, features); `pooled` is (features,) or None."""

    hidden_states: Tensor
    pooled: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return self.hidden_states.nbytes + (0 if self.pooled is None else self.pooled.nbytes)
