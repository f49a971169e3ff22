r"""The WebUI's prompt weights, told in compel's syntax, which our prompts know.

There `(cat)` weighs 1.1, `[cat]` 1 / 1.1, `(cat:1.4)` 1.4, nested ones multiply, and a backslash
takes a bracket's meaning away.
"""

from __future__ import annotations

import re
from itertools import groupby

MORE, LESS = 1.1, 1 / 1.1
MAX_WEIGHT = 10.0
_TOKEN = re.compile(
    r"""
    (?P<escaped> \\[()\[\]\\] )
    | (?P<open> [(\[] )
    | :\s*(?P<weight> \d+\.?\d* | \.\d+ )\s*\)
    | (?P<close> [)\]] )
    | (?P<text> [^\\()\[\]:]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMPELS = re.compile(r'([()"])')  # what has a meaning in compel's syntax

Piece = tuple[str, float]


def compel(prompts: list[str]) -> list[str] | None:
    """These prompts in compel's syntax; None where none of them has weights.

    >>> compel(["a (red:1.4) cat", "dog"])
    ['a (red)1.4 cat', 'dog']
    """
    parsed = [parse(prompt) for prompt in prompts]
    if all(weight == 1 for pieces in parsed for _, weight in pieces):
        return None
    return [" ".join(_told(pieces).split()) for pieces in parsed]


def plain(prompt: str) -> str:
    """A prompt without weights: what its backslashes hide means itself."""
    return "".join(text for text, _ in parse(prompt))


def parse(prompt: str) -> list[Piece]:
    """Its parts and their weights, which are the products of all brackets around them."""
    reader = _Reader()
    for token in _TOKEN.finditer(prompt):
        reader.take(token)
    return reader.end()


class _Reader:
    def __init__(self) -> None:
        self._texts: list[str] = []
        self._weights: list[float] = []
        self._open: dict[str, list[int]] = {"(": [], "[": []}

    def take(self, token: re.Match[str]) -> None:
        """One token. A closing bracket that closes nothing is text."""
        kind, text = token.lastgroup, token.group()
        if kind == "open":
            self._open[text].append(len(self._texts))
        elif kind == "weight" and self._open["("]:
            self._weigh("(", min(float(token["weight"]), MAX_WEIGHT))
        elif kind == "close" and self._open[_opening(text)]:
            self._weigh(_opening(text), MORE if text == ")" else LESS)
        else:
            self._texts.append(text[1:] if kind == "escaped" else text)
            self._weights.append(1.0)

    def end(self) -> list[Piece]:
        """All parts; brackets that are still open close here."""
        while self._open["("]:
            self._weigh("(", MORE)
        while self._open["["]:
            self._weigh("[", LESS)
        pairs = zip(self._texts, self._weights, strict=True)
        groups = groupby(pairs, key=lambda pair: round(pair[1], 3))
        return [("".join(text for text, _ in group), weight) for weight, group in groups]

    def _weigh(self, bracket: str, weight: float) -> None:
        start = self._open[bracket].pop()
        self._weights[start:] = [weight * one for one in self._weights[start:]]


def _opening(bracket: str) -> str:
    return "(" if bracket == ")" else "["


def _told(pieces: list[Piece]) -> str:
    return "".join(
        escaped if weight == 1 else f" ({escaped}){weight:g} "
        for escaped, weight in ((_COMPELS.sub(r"\\\1", text), weight) for text, weight in pieces)
    )
