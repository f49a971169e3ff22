"""This module learns from requests that end how much longer newcomers make them.

A request that has the machine almost to itself will have to share it when others come. One that
shares it with many already is hardly slowed down by more, because others leave meanwhile. So an
estimate is compared with those before it that had as much left, and shared it with as many.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from heapq import nsmallest
from typing import NamedTuple

AT_FIRST = 1.15  # how many times longer requests take, and as how many estimates that counts
DOUBTED = 10
OF_EACH = 4  # estimates of a request that are kept, evenly spread over its time,
KEPT = 400  # and of all requests together
ALIKE = 60  # of them that are nearest to a new one
NEARER = 0.5  # how much less the seconds that are left say about that than the stretch
RIGHT = 0.3  # an estimate is right if it is wrong by no more than this share of the true seconds


class Estimate(NamedTuple):
    """An estimate as if nobody else came.

    Attributes:
        at: when it was made.
        left_s: estimated, until the request ends.
        alone_s: the same, with the machine to itself.
    """

    at: float
    left_s: float
    alone_s: float

    @property
    def place(self) -> complex:
        """Return a point that is near to those of requests in the same situation."""
        return complex(math.log(self.left_s / self.alone_s), NEARER * math.log(self.alone_s))


class Newcomers:
    """The latest estimates are kept, with how many times longer each request really took."""

    def __init__(self) -> None:
        self._past: deque[tuple[complex, float]] = deque(maxlen=KEPT)

    def factor(self, estimate: Estimate) -> float:
        """Return by what to multiply an estimate, so that it is right as often as possible."""
        place = estimate.place
        alike = nsmallest(ALIKE, self._past, key=lambda one: abs(one[0] - place))
        doubted = [AT_FIRST] * max(DOUBTED - len(self._past), 0)
        return _right_most_often([ratio for _, ratio in alike] + doubted)

    def learn(self, estimates: Sequence[Estimate], end: float) -> None:
        """Compare a request's estimates with its end."""
        for one in estimates[:: math.ceil(len(estimates) / OF_EACH) or 1]:
            self._past.append((one.place, (end - one.at) / one.left_s))


def _right_most_often(ratios: Sequence[float]) -> float:
    """Return the factor that is right for most of these ratios, in the middle of such factors."""
    ordered = sorted(ratios)
    width = (1 + RIGHT) / (1 - RIGHT)
    until = [bisect_right(ordered, width * ratio) for ratio in ordered]
    most = max(end - first for first, end in enumerate(until))
    best = [first for first, end in enumerate(until) if end - first == most]
    first = best[len(best) // 2]
    last = until[first] - 1
    return ((1 + RIGHT) * ordered[first] + (1 - RIGHT) * ordered[last]) / 2
