"""The things the model knows by name: an emoji for the picture, a name and other words for it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from models.training.packages import KEYWORDS, fetch

LIST = Path(__file__).with_name("concepts.txt")


@dataclass(frozen=True)
class Concept:
    """One thing: the emoji that shows it, its plain name, further names, and whether it is common.

    Common things are those that newcomers type most; the UNet sees them more often.
    """

    emoji: str
    name: str
    synonyms: tuple[str, ...]
    common: bool


@cache
def concepts() -> dict[str, Concept]:
    """Every concept of concepts.txt by its name; there a star follows the common ones."""
    found = {}
    for line in LIST.read_text().splitlines():
        emoji, words = line.split(" ", 1)
        name, _, others = words.partition(": ")
        name, star, _ = name.partition("*")
        synonyms = tuple(filter(None, others.split(", ")))
        found[name] = Concept(emoji, name, synonyms, bool(star))
    return found


def keywords(work: Path) -> dict[str, list[str]]:
    """Names that mean one concept only: those of concepts.txt, and keywords of emojilib.

    A keyword that several concepts share, such as "animal", is left out, and so is one that names
    another concept.
    """
    stored = json.loads((fetch(KEYWORDS, work) / "dist" / "emoji-en-US.json").read_text())
    known = concepts()
    taken = {word for one in known.values() for word in (one.name, *one.synonyms)}
    offered = {
        one.name: {word.replace("_", " ").lower() for word in stored.get(one.emoji, [])}
        for one in known.values()
    }
    shared = Counter(word for words in offered.values() for word in words)
    return {
        name: sorted(
            word
            for word in words - taken
            if shared[word] == 1 and len(word) > 3 and word.replace(" ", "").isalpha()
        )
        for name, words in offered.items()
    }
