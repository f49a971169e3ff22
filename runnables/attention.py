r"""This module reads and writes the weights in the Stable Diffusion WebUI's prompts.

There `(cat)` weighs 1.1, `[cat]` 1 / 1.1, `(cat:1.4)` 1.4, brackets inside each other multiply, and
a backslash takes a bracket's meaning away.
"""

from __future__ import annotations

import math
import re
from itertools import accumulate, groupby

MORE, LESS = 1.1, 1 / 1.1
MAX_WEIGHT = 10.0
#: every token is decided by its first character: the time is in proportion to the length
_TOKEN = re.compile(r"\\[()\[\]\\]|[^\\()\[\]:]+|.", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d++\.?\d*+|\.\d++)")
_BRACKET = re.compile(r"([()\[\]\\])")

Piece = tuple[str, float]


def parse(prompt: str) -> list[Piece]:
    """Return its parts and their weights, which are the products of all brackets around them.

    Raises:
        ValueError: A weight is out of range.

    >>> parse("a (red:1.4) cat")
    [('a ', 1.0), ('red', 1.4), (' cat', 1.0)]
    """
    reader = _Reader()
    for token in _TOKEN.finditer(prompt):
        reader.take(token.group())
    return reader.end()


def escaped(text: str) -> str:
    """Return a text in which every character means itself, as a prompt of the WebUI."""
    return _BRACKET.sub(r"\\\1", text)


class _Reader:
    def __init__(self) -> None:
        self._texts: list[str] = []
        #: (start, end, weight), where the numbers count texts
        self._spans: list[tuple[int, int, float]] = []
        self._open: dict[str, list[int]] = {"(": [], "[": []}
        self._before = ("", "")  # the last two tokens

    def take(self, token: str) -> None:
        """Read one token. A closing bracket that closes nothing is text."""
        if token in self._open:
            self._open[token].append(len(self._texts))
        elif token == ")" and self._open["("]:
            self._close("(", self._weight())
        elif token == "]" and self._open["["]:
            self._close("[", LESS)
        else:
            self._texts.append(token[1:] if token[0] == "\\" and len(token) > 1 else token)
        self._before = (self._before[1], token)

    def end(self) -> list[Piece]:
        """Return all parts; brackets that are still open close here."""
        for bracket, weight in (("(", MORE), ("[", LESS)):
            while self._open[bracket]:
                self._close(bracket, weight)
        pairs = zip(self._texts, self._weights(), strict=True)
        groups = groupby(pairs, key=lambda pair: pair[1])
        return [("".join(text for text, _ in group), weight) for weight, group in groups]

    def _weight(self) -> float:
        """Return the weight that stands before a closing bracket, as in `(cat:1.4)`."""
        colon, number = self._before
        if colon != ":" or not _NUMBER.fullmatch(number.strip()):
            return MORE
        del self._texts[-2:]
        return float(number)

    def _close(self, bracket: str, weight: float) -> None:
        if not 0 <= weight <= MAX_WEIGHT:
            raise ValueError(f"a weight must be from 0 to {MAX_WEIGHT:g}, not {weight:g}")
        self._spans.append((self._open[bracket].pop(), len(self._texts), weight))

    def _weights(self) -> list[float]:
        """Return the weight of every text."""
        logarithms = [0.0] * (len(self._texts) + 1)
        zeros = [0.0] * (len(self._texts) + 1)
        for start, end, weight in self._spans:
            changed, amount = (logarithms, math.log(weight)) if weight else (zeros, 1.0)
            changed[start] += amount
            changed[end] -= amount
        sums = zip(accumulate(logarithms[:-1]), accumulate(zeros[:-1]), strict=True)
        return [0.0 if zero else _product(logarithm) for logarithm, zero in sums]


def _product(logarithm: float) -> float:
    if logarithm > math.log(MAX_WEIGHT) + 1e-9:
        raise ValueError(f"brackets inside each other must not weigh more than {MAX_WEIGHT:g}")
    return round(math.exp(logarithm), 3)
