"""Prompts and their encodings, whatever encodes them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from runnables.parameters import Syntax


class Vocabulary(Protocol):
    """A tokenizer with further words, and what they stand for in one text encoder."""

    tokenizer: Any

    def convert(self, prompt: str) -> str:
        """The prompt with every further word followed by the rest of its tokens."""
        ...

    def expand(self, ids: Iterable[int]) -> list[int]:
        """The same for token ids."""
        ...

    def spoken(self, model: Any) -> AbstractContextManager[None]:
        """While open, the text encoder knows the words."""
        ...


class TextAddition(Protocol):
    """What an extension adds to a prompt's encoding. It is hashable: encodings are cached by it."""

    def around(self, component: str, model: Any) -> AbstractContextManager[None]:
        """While open, calls of this text encoder (by its name in model_index.json) have it."""
        ...

    def vocabulary(self, tokenizer: Any, index: int) -> Vocabulary | None:
        """The words it adds to the model's `index`-th text encoder; None: it adds none."""
        ...


@dataclass(frozen=True)
class Text:
    """A prompt with everything that its encoding depends on; "" stands for no negative prompt.

    Attributes:
        clip_skip: text encoder layers left out at the end, counted as diffusers does.
    """

    prompt: str
    syntax: Syntax = "plain"
    clip_skip: int = 0
    additions: tuple[TextAddition, ...] = ()

    def emptied(self) -> Text:
        """The text that lengthens this one's encoding: "", encoded in the same way."""
        return replace(self, prompt="", syntax="plain")


@dataclass(frozen=True, eq=False)
class Embedding:
    """An encoded prompt: `hidden_states` (tokens, features), and `pooled` (features,) or None."""

    hidden_states: Tensor
    pooled: Tensor | None = None
