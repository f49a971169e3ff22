"""The ends of requests are estimated by running the policy of `scheduling.py` ahead."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from runnables.engine.newcomers import Estimate, Newcomers
from runnables.engine.scheduling import Candidate, Turns
from runnables.engine.work import Work

R = TypeVar("R")

EVERY_S = 1.0  # so often it looks ahead, and when somebody has come; in between it counts down
SHARE = 0.02  # of the time may be spent with looking ahead
LEAST_S = 1e-6  # that a request has left
COMING = 32  # requests that wait are looked at, so that one look takes a bounded time


class Forecast(Generic[R]):
    """The forecast runs the turns ahead as if nobody else came, and learns what newcomers add.

    Args:
        turns: of the engine; they are not changed.
        seconds: estimated, of a call with this candidate that holds so much load.
        clock: in seconds.
        waiting: called with the rows being served; the rows of each request that waits, in order.
        has_room: whether the next one is taken, beside these rows.
    """

    def __init__(
        self,
        turns: Turns[R],
        seconds: Callable[[Candidate[R], float], float],
        clock: Callable[[], float] = time.monotonic,
        waiting: Callable[[Sequence[Candidate[R]]], list[list[Candidate[R]]]] = lambda served: [],
        has_room: Callable[[Sequence[Candidate[R]], Work], bool] = lambda rows, work: False,
    ) -> None:
        self._turns = turns
        self._seconds = seconds
        self._clock = clock
        self._waiting = waiting
        self._has_room = has_room
        self._newcomers = Newcomers()
        self._looked = self._allowed = -math.inf  # when it did, and may again
        self._ends: WeakKeyDictionary[Work, float] = WeakKeyDictionary()
        self._stretch = 1.0  # how many times longer than alone requests take now
        self._factors: WeakKeyDictionary[Work, float] = WeakKeyDictionary()  # for newcomers
        self._made: WeakKeyDictionary[Work, list[Estimate]] = WeakKeyDictionary()

    def seconds(self, work: Work, candidates: Sequence[Candidate[R]]) -> float:
        """Estimate the seconds until a request ends.

        Args:
            candidates: all rows that take steps or wait to be decoded, those of the request too.
        """
        now = self._clock()
        wanted = work not in self._ends or now >= self._looked + EVERY_S
        if wanted and now >= self._allowed:
            self._look_ahead(now, candidates)
        alone_s = _alone_s(work, candidates)
        end = self._ends.get(work)
        left_s = alone_s * self._stretch if end is None else max(end - now, alone_s)
        estimate = Estimate(now, left_s, alone_s)
        self._made.setdefault(work, []).append(estimate)
        if work not in self._factors:
            self._factors[work] = self._newcomers.factor(estimate)
        return left_s * self._factors[work]

    def ended(self, work: Work) -> None:
        """Compare a request's estimates with its end, which is now."""
        self._newcomers.learn(self._made.pop(work, []), self._clock())

    def _look_ahead(self, now: float, candidates: Sequence[Candidate[R]]) -> None:
        self._ends, self._factors = WeakKeyDictionary(), WeakKeyDictionary()
        for work, seconds in self._run_ahead(now, candidates):
            self._ends[work] = now + seconds  # of its last row
        alone_s = {work: _alone_s(work, candidates) for work in self._ends}
        left_s = {work: max(end - now, alone_s[work]) for work, end in self._ends.items()}
        for work in self._ends:
            estimate = Estimate(now, left_s[work], alone_s[work])
            self._factors[work] = self._newcomers.factor(estimate)
        self._stretch = sum(left_s.values()) / sum(alone_s.values())
        self._looked, self._allowed = now, now + (self._clock() - now) / SHARE

    def _run_ahead(
        self, now: float, candidates: Sequence[Candidate[R]]
    ) -> Iterable[tuple[Work, float]]:
        """Yield each row's request and the seconds until the row is decoded.

        Requests that wait begin as soon as there is room, and it ends with the rows served now.
        """
        seconds = 0.0
        turns = self._turns.copied(lambda: now + seconds)
        rows: dict[int, Candidate[R]] = {}
        for one in candidates:
            if one.key.decoding:
                seconds += one.left_s
                yield one.work, seconds
            else:
                rows[id(one.row)] = one
        served, waiting = {*rows}, self._waiting(candidates)
        while not served.isdisjoint(rows):
            while waiting and self._has_room([*rows.values()], waiting[0][0].work):
                rows |= {id(one.row): one for one in waiting.pop(0)}
            chosen, count, calls_s = self._take_calls(turns, [*rows.values()])
            seconds += calls_s
            for one in (rows[id(one.row)] for one in chosen):
                if one.calls > count:
                    rows[id(one.row)] = self._after_calls(one, count)
                    continue
                del rows[id(one.row)]
                seconds += self._decode_s(one)
                if id(one.row) in served:
                    yield one.work, seconds

    def _take_calls(
        self, turns: Turns[R], rows: Sequence[Candidate[R]]
    ) -> tuple[list[Candidate[R]], int, float]:
        """Take the next calls; return the rows that share them, how many calls, and their seconds.

        While all rows share a call the next one is the same, until the first of them is through.
        """
        mixed = turns.mixed(rows)
        chosen = turns.choose(mixed)
        call_s = self._seconds(chosen[0], sum(one.load for one in chosen))
        count = min(one.calls for one in chosen) if len(chosen) == len(mixed) else 1
        for _ in range(count):
            turns.took(chosen, mixed, call_s)
        return chosen, count, count * call_s

    def _after_calls(self, one: Candidate[R], count: int) -> Candidate[R]:
        added_s = (one.added_s - self._decode_s(one)) / one.calls
        return replace(
            one,
            calls=one.calls - count,
            left_s=one.left_s - count * self._seconds(one, one.load),
            added_s=one.added_s - count * added_s,
            fresh=False,
        )

    def _decode_s(self, one: Candidate[R]) -> float:
        """Return what is left of a row's seconds without its calls of the denoiser."""
        return max(one.left_s - one.calls * self._seconds(one, one.load), 0.0)


def _alone_s(work: Work, candidates: Iterable[Candidate[R]]) -> float:
    """Return the seconds that are left of a request's last row, alone on the machine; never 0."""
    return max(LEAST_S, *(one.left_s for one in candidates if one.work is work))
