"""A small model may list the words that it knows, so that callers are told when it knows none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runnables.checkpoints.components import refusal

NAME = "vocabulary.json"
WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
ENDINGS = ("", "s", "es")  # plurals
NAMED = 12  # examples in a hint


@dataclass(frozen=True)
class Vocabulary:
    """These are the names of what a demo model can draw.

    Attributes:
        examples: some common ones, for people.
        names: all of them in lower case, of one word or several.
    """

    examples: tuple[str, ...]
    names: frozenset[str]

    def hint(self, text: str) -> str:
        """Return what a caller should know about an image of this text."""
        if any(name in self.names for name in _phrases(text, self._longest)):
            return "made by a small demo model"
        examples = ", ".join(self.examples[:NAMED])
        return f"the demo model knows none of these words; it knows {examples} and others"

    @property
    def _longest(self) -> int:
        return max((name.count(" ") + 1 for name in self.names), default=0)


def read(folder: Path) -> Vocabulary | None:
    """Return the vocabulary of a model folder; None where it lists none.

    Raises:
        ConfigurationError: vocabulary.json is not `{"examples": [...], "names": [...]}`.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        return Vocabulary(tuple(content["examples"]), frozenset(content["names"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise refusal(f"{path} lists no examples and names: {error!r}") from error


def _phrases(text: str, longest: int) -> Iterator[str]:
    """Yield all runs of up to `longest` words, as written and with an ending taken off."""
    words = WORD.findall(text.lower())
    for first in range(len(words)):
        for last in range(first + 1, min(first + longest, len(words)) + 1):
            phrase = " ".join(words[first:last])
            yield from (phrase.removesuffix(ending) for ending in ENDINGS)
