"""A machine with a virtual clock, on which the policy of the engine is run without any model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from runnables.engine.cost import CostModel
from runnables.engine.forecast import Forecast
from runnables.engine.scheduling import (
    BatchKey,
    Busy,
    Candidate,
    Queue,
    Turns,
    has_room,
    urgency,
)
from runnables.errors import StableDiffusionError
from runnables.parameters import Priority, TextToImage
from runnables.ticket import ANYBODY, Caller, Ticket

#: as measured with the embedded model on two cores: 22 ms for one image, 87 ms for eight
COST = CostModel(overhead=0.013, rate=0.0046 / 256, decode_rate=0.02 / 256, _observed=100)
LIMIT = 16
#: `tall` shares no call with others, as if a ControlNet acted on it; `low` may
SIZES = {
    "square": BatchKey(1, 16, 16, 77, mixes=True),
    "tall": BatchKey(1, 24, 16, 77),
    "low": BatchKey(1, 12, 16, 77, mixes=True),
    "narrow": BatchKey(1, 16, 12, 77, mixes=True),
}


@dataclass(eq=False)
class Request:
    """A request that arrives at a time; the machine fills in `begun`, `ended` and `etas`.

    Attributes:
        etas: from the fifth step on, when each estimate was made, and what it was.
        then: the same client's next request, which arrives when this one ends.
    """

    at: float
    steps: int
    images: int = 1
    caller: Caller = ANYBODY
    size: str = "square"
    priority: Priority = "normal"
    deadline: float = 1e6
    begun: float | None = None
    ended: float | None = None
    refused: StableDiffusionError | None = None
    etas: list[tuple[float, float]] = field(default_factory=list)
    then: Request | None = None

    @property
    def latency(self) -> float:
        assert self.ended is not None, "it never ended"
        return self.ended - self.at


@dataclass(eq=False)
class Row:
    work: Work
    done: int = 0

    @property
    def candidate(self) -> Candidate[Row]:
        work: Any = self.work
        key, calls = SIZES[work.request.size], work.steps - self.done
        left_s = COST.left(2.0 * key.area * calls, calls) + COST.decode(1, key.area)
        added_s = left_s - calls * COST.overhead
        if not calls:
            key = replace(key, tokens=0, decoding=True, mixes=False)
        load = 2.0 if calls else 1.0
        return Candidate(self, work, key, load, calls, left_s, added_s, fresh=self.done == 0)

    @property
    def share_s(self) -> float:
        calls, area = self.work.steps - self.done, self.work.area
        return COST.share(2.0 * area * calls, calls) + COST.decode(1, area)


@dataclass(eq=False)
class Work:
    """What the policy knows of a request."""

    request: Request
    ticket: Ticket = field(init=False)
    seconds: float = field(init=False)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        one = self.request
        asked = TextToImage(prompt="x", priority=one.priority)
        self.ticket = Ticket(asked, submitted=one.at, caller=one.caller)
        self.model = SimpleNamespace(cost=COST)
        self.parameters = self.ticket.parameters
        self.seconds = COST.alone(one.steps, 2.0, one.images, self.area)
        self.left = one.images
        self.expires = one.at + one.deadline
        self.urgency = urgency(self.ticket, self.seconds, self.expires)

    @property
    def steps(self) -> int:
        return self.request.steps

    @property
    def area(self) -> int:
        return SIZES[self.request.size].area

    @property
    def rows_to_come(self) -> float:
        return 2.0 * self.request.images

    @property
    def share_s(self) -> float:
        return self.request.images * Row(self).share_s


class Machine:
    """The machine runs requests; its steps take what the cost model says."""

    def __init__(self, max_wait: float = 1e6, *, mixes_sizes: bool = True) -> None:
        self.now = 0.0
        self.rows: list[Row] = []
        self.busy_s = 0.0
        self.turns: Turns[Row] = Turns(
            self._limit, _seconds, lambda: self.now, mixes_sizes=mixes_sizes
        )
        self.forecast: Forecast[Row] = Forecast(
            self.turns,
            _seconds,
            lambda: self.now,
            lambda served: [self._coming(work) for work in self.queue.ordered],
            self._has_room,
        )
        self.queue = Queue(max_wait, self._busy, self.turns.served, lambda: self.now)

    def run(self, requests: Sequence[Request]) -> Machine:
        """Run all requests to their end."""
        coming = iter(sorted(requests, key=lambda one: one.at))
        following = next(coming, None)
        while following or len(self.queue) or self.rows:
            while following and following.at <= self.now:
                self._arrive(following)
                following = next(coming, None)
            self._admit()
            if self.rows:
                self._step()
            elif following:
                self.now = max(self.now, following.at)
        return self

    def _arrive(self, request: Request) -> None:
        work: Any = Work(request)
        try:
            self.queue.admit(work)
        except StableDiffusionError as error:
            request.refused = error

    def _admit(self) -> None:
        while (following := self.queue.first) and self._has_room(self._candidates(), following):
            work: Any = self.queue.take()
            self.rows += [Row(work) for _ in range(work.left)]

    def _has_room(self, rows: Sequence[Candidate[Row]], work: Any) -> bool:
        return has_room(rows, [], work, lambda area: LIMIT)

    def _coming(self, work: Any) -> list[Candidate[Row]]:
        return [Row(work).candidate for _ in range(work.left)]

    def _step(self) -> None:
        candidates = self._candidates()
        chosen = self.turns.choose(candidates)
        seconds = _seconds(chosen[0], sum(one.load for one in chosen))
        self.now += seconds
        self.busy_s += seconds
        for row in [one.row for one in chosen]:
            self._count(row)
        self.turns.took(chosen, candidates, seconds)
        self._estimate({row.work for row in self.rows if row in [one.row for one in chosen]})

    def _estimate(self, works: set[Work]) -> None:
        candidates = [row.candidate for row in self.rows]
        for work in works:
            last = max((c for c in candidates if c.work is work), key=lambda c: c.calls)
            if not last.calls:
                continue
            asked: Any = work
            eta = self.forecast.seconds(asked, candidates)
            if last.calls <= work.steps - 5:
                work.request.etas.append((self.now, eta))

    def _count(self, row: Row) -> None:
        work = row.work
        if work.request.begun is None:
            work.request.begun = self.now
        row.done += 1
        if row.done > work.steps:  # it was decoded
            self.rows.remove(row)
            work.left -= 1
            if not work.left:
                work.request.ended = self.now
                ended: Any = work
                self.forecast.ended(ended)
                if following := work.request.then:
                    following.at = self.now
                    self._arrive(following)

    def _limit(self, one: Candidate[Row]) -> float:
        if not one.key.decoding:
            return LIMIT
        waiting = 2 * sum(row.done < row.work.steps for row in self.rows)
        seconds = COST.step(min(waiting, LIMIT), one.key.area)
        return max(1, int(seconds / COST.decode(1, one.key.area)))

    def _candidates(self) -> list[Candidate[Row]]:
        return self.turns.mixed([row.candidate for row in self.rows])

    def _busy(self) -> Iterator[Busy]:
        for row in self.rows:
            yield Busy(row.work.ticket.caller, row.work.urgency, row.share_s)


def _seconds(one: Candidate[Row], load: float) -> float:
    area = one.key.area
    return COST.decode(load, area) if one.key.decoding else COST.step(load, area)


def alone(request: Request) -> float:
    """Return the seconds that a request takes on a machine of its own."""
    return COST.alone(request.steps, 2.0, request.images, SIZES[request.size].area)


def full_step(size: str = "square") -> float:
    """Return the seconds of a call that holds as much as it may."""
    return COST.step(LIMIT, SIZES[size].area)
