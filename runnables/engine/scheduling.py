"""This module has all policy of the engine: who is admitted, who waits, who takes the next step.

Three rules hold everywhere, and `tests/runnables/engine/test_fairness.py` proves their bounds:

- Callers (API keys) share the machine's seconds by their weights. Who has had less goes first.
- Among the requests of a caller the least remaining work goes first, with ageing: a request that
  has waited a multiple of its own time, or may miss its deadline, is overdue and goes before them.
- Whoever goes first shares the step with the others, but those that have had more, or have several
  times as much left as its whole request, at most double the time of the step. Work that cannot
  share it (another size or model) gets as much time in steps of its own.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import insort
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from runnables.engine.work import Work
from runnables.errors import DeadlineExceeded, NotReady, OverCapacity
from runnables.parameters import Priority
from runnables.ticket import Caller, Progress, Ticket

#: how many times its own time a request may wait before others of its class overtake it
PATIENCE: Mapping[Priority, float] = {"high": 1.0, "normal": 4.0, "low": 16.0}
AHEAD = 2  # how many full batches of rows are prepared and kept in memory
PEERS = 4.0  # how many times as much as the first in line's whole request its peers may have left
#: how many times longer a step may become by those that are not first in line; with what happens
#: between the steps, which nobody is charged for, it is the promised doubling
STRETCH = 1.8
LAST = 10.0  # requests that are so many times shorter go before one even in its last steps
MOST_DEBT_STEPS = 10  # steps in which the first in line make up for a delay, at most
MIXING = 1.05  # how much longer than apart sizes may take in a call that saves another
FORGET = 1000  # callers that are remembered; then the half that was served least is forgotten


def urgency(ticket: Ticket, seconds: float, expires: float) -> float:
    """Return the time.monotonic at which a request that takes so long alone should be served."""
    wait = PATIENCE[ticket.parameters.priority] * seconds
    return min(ticket.submitted + wait, expires - seconds)


def due(work: Work, left_s: float) -> float:
    """Return the time until which others may overtake what is left of a request."""
    ended = urgency(work.ticket, work.seconds, work.expires) + work.seconds
    return min(ended, work.expires - STRETCH * left_s)


# -- the next step ----------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchKey:
    """Two rows share a denoiser call if their keys are equal; all else may differ.

    Attributes:
        family: the loaded model's number: the refiner is another than its base.
        height, width: of the latents.
        tokens: length of the text conditioning.
        acting: the extensions that act at this step and cannot share it with others.
        decoding: whether the call is one of the VAE, for rows that are denoised.
        mixed: whether rows of several sizes or prompt lengths share the call; `height`, `width` and
            `tokens` are the largest ones.
        mixes: whether the row may take part in such a call.
        listed: whether the row takes the time of its own positions there, and not of the largest's.
    """

    family: int
    height: int
    width: int
    tokens: int
    acting: frozenset[str] = frozenset()
    decoding: bool = False
    mixed: bool = False
    mixes: bool = field(default=False, compare=False)
    listed: bool = field(default=False, compare=False)

    def joined(self, other: BatchKey) -> BatchKey:
        """Return the key of a call with rows of both."""
        height, width = max(self.height, other.height), max(self.width, other.width)
        tokens = max(self.tokens, other.tokens)
        listed = self.listed and other.listed
        return BatchKey(self.family, height, width, tokens, mixed=True, mixes=True, listed=listed)

    @property
    def area(self) -> int:
        """Return the latent positions of one row."""
        return self.height * self.width


R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Candidate(Generic[R]):
    """A candidate is a row that could take the next step, with what the choice needs to know.

    Attributes:
        work: what the row is an image of.
        load: denoiser rows of the next call; 1 of a call that decodes.
        calls: denoiser calls that are left.
        left_s: seconds until the row is decoded, alone on the machine.
        added_s: seconds of them that the row adds where others make the same calls.
        fresh: whether it has taken no step yet.
    """

    row: R
    work: Work
    key: BatchKey
    load: float
    calls: int
    left_s: float
    added_s: float
    fresh: bool = False

    @property
    def caller(self) -> Caller:
        return self.work.ticket.caller

    @cached_property
    def due(self) -> float:
        """Return the time until which others may overtake it."""
        return due(self.work, self.left_s)

    @property
    def rest_s(self) -> float:
        """Return the seconds that are left, at least so large a part of the whole request's.

        A long request in its last steps would have a short one wait for much of its own time, and
        gain little of the time that it has taken itself.
        """
        return max(self.left_s, self.work.seconds / LAST)

    @property
    def pending_s(self) -> float:
        """Return the seconds that are left, where those of higher priority count less."""
        return self.rest_s * PATIENCE[self.work.parameters.priority]


def _common(alike: Sequence[Candidate[R]]) -> BatchKey:
    """Return the key of candidates with equal ones, with what all of them may."""
    keys = [one.key for one in alike]
    mixes, listed = all(key.mixes for key in keys), all(key.listed for key in keys)
    return replace(keys[0], mixes=mixes, listed=listed)


def _load_in(call: BatchKey, alike: Sequence[Candidate[R]]) -> float:
    """Return the load of candidates of one size in a call, in rows of the call's largest size."""
    load = sum(one.load for one in alike)
    return load * alike[0].key.area / call.area if call.listed else load


class Turns(Generic[R]):
    """Turns are taken by callers, batch keys and rows; the engine's thread alone calls `choose`.

    Args:
        limit: denoiser rows, or as much other load, that a call with this candidate may hold.
        seconds: estimated, of a call with this candidate that holds so much load.
        clock: in seconds, of the same kind as a ticket's `submitted`.
        serving: the callers of all rows and tasks.
        mixes_sizes: whether rows of different sizes and prompt lengths may share a call.
    """

    def __init__(
        self,
        limit: Callable[[Candidate[R]], float],
        seconds: Callable[[Candidate[R], float], float],
        clock: Callable[[], float] = time.monotonic,
        serving: Callable[[], Iterable[Caller]] = lambda: (),
        *,
        mixes_sizes: bool,
    ) -> None:
        self._mixes_sizes = mixes_sizes
        self._limit = limit
        self._seconds = seconds
        self._clock = clock
        self._serving = serving
        self._served: dict[str, float] = {}  # virtual time: seconds by weight, by caller
        self._floor = 0.0  # the virtual time at which new callers begin
        self._spare = 0.0  # seconds that batch keys other than the first may take
        self._taken: dict[BatchKey, float] = {}  # seconds that each of them took while it waits
        self._led: BatchKey | None = None
        self._leader = ""  # the caller who is first in line
        self._leads = True  # whether the chosen call belongs to the time of the first in line
        self._decoded = False  # whether the last call was one of the VAE
        self._peers_s = 0.0  # estimated, of the chosen step without those that fill it
        self._debt = 0.0  # seconds by which others than the first were served too much

    def copied(self, clock: Callable[[], float]) -> Turns[R]:
        """Return turns that go on from here by another clock, and change nothing of these."""
        other = copy(self)
        other._clock, other._serving = clock, tuple
        other._served, other._taken = dict(self._served), dict(self._taken)
        return other

    def served(self, caller: Caller) -> float:
        """Return the caller's virtual time: the seconds that it was served, divided by weight."""
        return max(self._served.get(caller.name, 0.0), self._floor)

    def charge(self, caller: Caller, seconds: float) -> None:
        """Count seconds of the machine that a caller was served."""
        if len(self._served) > FORGET:
            most = sorted(self._served.items(), key=itemgetter(1))[FORGET // 2 :]
            self._served = dict(most)
        self._served[caller.name] = self.served(caller) + seconds / caller.weight

    def _raise_floor(self, served: float) -> None:
        """Let new callers begin where the least served one is that is being served.

        So nobody pays later for time that nobody else wanted.
        """
        others = [self.served(caller) for caller in self._serving()]
        self._floor = max(self._floor, min([served, *others]))

    def mixed(self, candidates: Sequence[Candidate[R]]) -> list[Candidate[R]]:
        """Return the candidates, with one key for those sizes that take less time in one call.

        Each call that is saved saves what no row adds to. Rows that are listed add the time of
        their own positions, and others that of the call's largest row. So small batches of small
        images share a call. Full ones do not, or those of images so large that one fills the
        device.
        """
        groups: dict[BatchKey, list[Candidate[R]]] = {}
        for one in candidates:
            groups.setdefault(one.key, []).append(one)
        if not self._mixes_sizes or len(groups) == 1:
            return [*candidates]
        groups = {_common(group): group for group in groups.values()}
        free = [key for key in groups if key.mixes]
        calls: list[tuple[BatchKey, list[BatchKey]]] = []
        for key in sorted(free, key=lambda key: key.area, reverse=True):
            for index, (call, members) in enumerate(calls):
                joint, both = call.joined(key), [*members, key]
                first, second = self._calls(call, members, groups), self._calls(key, [key], groups)
                count, seconds = self._calls(joint, both, groups)
                saves = count < first[0] + second[0] and seconds < MIXING * (first[1] + second[1])
                if call.family == key.family and saves:
                    calls[index] = joint, both
                    break
            else:
                calls.append((key, [key]))
        changed = {key: call for call, members in calls for key in members if call.mixed}
        return [
            replace(one, key=changed[one.key], load=_load_in(changed[one.key], [one]))
            if one.key in changed
            else one
            for one in candidates
        ]

    def _calls(
        self,
        call: BatchKey,
        members: list[BatchKey],
        groups: Mapping[BatchKey, list[Candidate[R]]],
    ) -> tuple[int, float]:
        """Return in how many calls of one size all rows of these keys take a step, and seconds."""
        one = replace(groups[members[0]][0], key=call)
        load = sum(_load_in(call, groups[key]) for key in members)
        count = math.ceil(load / self._limit(one))
        return count, count * self._seconds(one, load / count)

    def choose(self, candidates: Sequence[Candidate[R]]) -> list[Candidate[R]]:
        """Return the candidates that take the next step together.

        Args:
            candidates: all of them, at least one. A single one is always taken.
        """
        self._raise_floor(min(self.served(one.caller) for one in candidates))
        level = self._level(candidates)
        rank = partial(self._rank, level, self._clock())
        steps = [one for one in candidates if not one.key.decoding]
        first = min(steps or candidates, key=rank)
        if first.key != self._led:
            self._spare = max(self._spare, 0.0)  # what others took of another's time is past
        self._led, self._leader, self._leads, most_s = first.key, first.caller.name, True, math.inf
        ahead = min(candidates, key=rank)  # before the steps: an image to decode
        if ahead.key.decoding and (not self._decoded or self.served(first.caller) > level):
            first = ahead  # no step waits for more than one such call
        elif (key := self._due(candidates, first.key, level)) is not None:
            first, self._leads = min((o for o in candidates if o.key == key), key=rank), False
            most_s = self._spare if key.decoding else most_s
        alike = [one for one in candidates if one.key == first.key]
        return self._fill(first, alike, level, most_s)

    def ordered(self, candidates: Sequence[Candidate[R]]) -> list[Candidate[R]]:
        """Return the candidates with those in front that go first, whatever may share a call."""
        return sorted(candidates, key=partial(self._rank, self._level(candidates), self._clock()))

    def _level(self, candidates: Sequence[Candidate[R]]) -> float:
        """Return the virtual time of callers who have not been served more than others.

        Callers of equal load differ by parts of a step, which must not limit what they share.
        """
        least = min(self.served(one.caller) for one in candidates)
        by_key = {one.key: one for one in candidates}.values()
        return least + max(self._seconds(one, self._limit(one)) for one in by_key) / 2

    def _rank(self, level: float, now: float, one: Candidate[R]) -> tuple[bool, bool, float]:
        overdue = one.due < now
        place = one.due if overdue else one.pending_s
        return self.served(one.caller) > level, not overdue, place

    def _due(
        self, candidates: Sequence[Candidate[R]], led: BatchKey, level: float
    ) -> BatchKey | None:
        """Return another batch key whose turn it is: there has been as much time as its call takes.

        Of all others the one that has taken least goes first. One with a new row waits for one step
        only, and images to decode until there is time for one of them.
        """
        groups: dict[BatchKey, list[Candidate[R]]] = {}
        for one in candidates:
            if one.key != led and not (one.key.decoding and self._decoded):
                groups.setdefault(one.key, []).append(one)
        new = {
            key
            for key, group in groups.items()
            if any(one.fresh and self.served(one.caller) <= level for one in group)
        }
        due = min(groups, key=lambda key: (key not in new, self._taken.get(key, 0.0)), default=None)
        if due is None or self._spare <= 0:
            return None
        group = groups[due]
        load = group[0].load if due.decoding else sum(one.load for one in group)
        needed = self._seconds(group[0], min(load, self._limit(group[0])))
        return due if due in new or needed <= self._spare else None

    def _fill(
        self, first: Candidate[R], alike: list[Candidate[R]], level: float, most_s: float
    ) -> list[Candidate[R]]:
        """Return the first, its peers, and of the others those that at most double the step.

        New rows go before others, so that they take their first step soon, and then those that have
        least left. All of it takes at most `most_s`, unless the first alone takes longer.
        """
        alike = sorted(alike, key=lambda one: (not one.fresh, one.pending_s))
        room, longest = self._limit(first), PEERS * first.work.seconds
        peers = [one for one in alike if self.served(one.caller) <= level and one.rest_s <= longest]
        chosen, load = [first], first.load
        for one in peers:
            fits = load + one.load <= room and self._seconds(first, load + one.load) <= most_s
            if one is not first and fits:
                chosen.append(one)
                load += one.load
        self._peers_s = self._seconds(first, load)
        allowed = min(STRETCH * self._peers_s - self._debt, most_s)
        for one in sorted(alike, key=lambda one: self.served(one.caller) > level):
            fits = load + one.load <= room and self._seconds(first, load + one.load) <= allowed
            if one not in chosen and fits:
                chosen.append(one)
                load += one.load
        return chosen

    def delayed(self, seconds: float) -> None:
        """Count seconds between the steps, or of a step beyond what others may take of it.

        So what others cost beside their steps (encoding, decoding) is part of the doubling.
        """
        self._debt = min(max(self._debt + seconds, 0.0), MOST_DEBT_STEPS * self._peers_s)

    def took_beside(self, caller: Caller, seconds: float) -> None:
        """Count seconds of a task: to its caller, and as a delay of another's steps."""
        self.charge(caller, seconds)
        self._raise_floor(self.served(caller))
        if caller.name != self._leader:
            self.delayed(seconds)

    def took(
        self,
        chosen: Sequence[Candidate[R]],
        candidates: Sequence[Candidate[R]],
        seconds: float,
    ) -> None:
        """Count a step: to its callers by load, and to the batch keys that waited for it."""
        key = chosen[0].key
        self._decoded = key.decoding
        load = sum(one.load for one in chosen)
        for one in chosen:
            self.charge(one.caller, seconds * one.load / load)
        others = {one.key for one in candidates if one.key != self._led}
        if self._leads:
            self.delayed(seconds - STRETCH * self._peers_s)
            self._spare += seconds if others else -self._spare
        else:
            self.delayed(seconds if chosen[0].caller.name != self._leader else 0.0)
            self._spare -= seconds
            self._taken[key] = self._taken.get(key, 0.0) + seconds
        self._taken = {other: self._taken.get(other, 0.0) for other in others}


# -- admission --------------------------------------------------------------------------------


class Busy(NamedTuple):
    """This much work is accepted and not finished.

    Attributes:
        seconds: that it takes of a machine that is busy with other work, too.
    """

    caller: Caller
    urgency: float
    seconds: float


class Queue:
    """The queue holds accepted work that has not begun; it is thread-safe.

    The work of the caller that has had least goes first, and of that the most urgent.

    Args:
        max_wait: seconds of estimated waiting beyond which requests are refused.
        busy: the work that has begun.
        served: virtual time of a caller, as `Turns.served`.
        clock: in seconds, of the same kind as a ticket's `submitted`.
    """

    def __init__(
        self,
        max_wait: float,
        busy: Callable[[], Iterable[Busy]],
        served: Callable[[Caller], float] = lambda caller: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_wait = max_wait
        self._busy = busy
        self._served = served
        self._clock = clock
        self._waiting: dict[str, list[Work]] = {}  # by caller, the most urgent first
        self._changed = threading.Condition()
        self._woken = False
        self.closed = False

    def __len__(self) -> int:
        with self._changed:
            return sum(map(len, self._waiting.values()))

    @property
    def first(self) -> Work | None:
        """Return what `take` would return; the time for it depends on the callers alone."""
        with self._changed:
            return min((own[0] for own in self._waiting.values()), key=self._rank(), default=None)

    @property
    def ordered(self) -> list[Work]:
        """Return all that waits, in the order in which `take` would return it."""
        with self._changed:
            return sorted(self._all(), key=self._rank())

    @property
    def pending_s(self) -> float:
        """Return the estimated seconds of work that is accepted and not finished."""
        with self._changed:
            waiting = sum(work.share_s for work in self._all())
        return waiting + sum(one.seconds for one in self._busy())

    def admit(self, work: Work) -> None:
        """Admit a request.

        Raises:
            NotReady: the service is draining.
            DeadlineExceeded: alone on the machine it would take longer than its deadline allows.
            OverCapacity: it would wait longer than allowed, or past its own deadline.
        """
        with self._changed:
            if self.closed:
                raise NotReady("the service is stopping and takes no new requests")
            doubt = work.model.cost.doubt
            spare = work.expires - self._clock() - work.seconds / doubt
            if spare < 0:
                allowed = work.expires - work.ticket.submitted
                raise DeadlineExceeded(
                    f"it takes about {work.seconds:.1f} s alone, and its deadline is "
                    f"{allowed:.1f} s",
                    loc=("deadline_s",),
                )
            wait, room = self._wait(work) / doubt, min(self._max_wait, spare)
            if wait > room:
                raise OverCapacity(
                    f"about {wait:.0f} s of work are ahead; try again later",
                    retry_after=wait - room,
                )
            self._put(work)
            self._number()
            self._wake()

    def take(self) -> Work | None:
        """Remove and return the request that goes first."""
        with self._changed:
            if (work := self.first) is None:
                return None
            self._remove(work)
            try:
                self._number()
            except Exception:
                self._put(work)  # or nobody would have it
                raise
            return work

    def discard(self, ended: Callable[[Work], bool]) -> list[Work]:
        """Take out the requests that have ended while they waited (cancelled, expired)."""
        with self._changed:
            out = [work for work in self._all() if ended(work)]
            for work in out:
                self._remove(work)
            if out:
                self._number()
            return out

    def close(self) -> None:
        """Refuse all further requests."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wake(self) -> None:
        """End a `wait`, this one or the next, because there is something else to do."""
        with self._changed:
            self._wake()

    def wait(self, timeout: float) -> None:
        """Sleep until something is admitted, or the queue is being closed, or the timeout.

        What was admitted before and found no room ends no wait.
        """
        with self._changed:
            if not self._woken:
                self._changed.wait(timeout)
            self._woken = False

    def _wake(self) -> None:
        self._woken = True
        self._changed.notify_all()

    def _wait(self, work: Work) -> float:
        """Estimate the seconds for which others hold a request up.

        Of its own caller's work all that is more urgent goes first, and the rest takes at most half
        of its steps. Every other caller gets at most its share by weight of the time until then. So
        work of others delays nobody by more than that, and who floods is refused for its own work.
        """
        caller = work.ticket.caller
        ahead = later = 0.0
        others: Counter[Caller] = Counter()
        queued = (Busy(one.ticket.caller, one.urgency, one.share_s) for one in self._all())
        for one in [*self._busy(), *queued]:
            if one.caller.name != caller.name:
                others[one.caller] += one.seconds  # type: ignore[assignment]
            elif one.urgency <= work.urgency:
                ahead += one.seconds
            else:
                later += one.seconds
        own = ahead + min(later, work.seconds)
        until = own + work.seconds
        return own + sum(
            min(seconds, until * other.weight / caller.weight) for other, seconds in others.items()
        )

    def _all(self) -> Iterator[Work]:
        return chain.from_iterable(self._waiting.values())

    def _put(self, work: Work) -> None:
        own = self._waiting.setdefault(work.ticket.caller.name, [])
        insort(own, work, key=attrgetter("urgency"))

    def _remove(self, work: Work) -> None:
        name = work.ticket.caller.name
        self._waiting[name].remove(work)
        if not self._waiting[name]:
            del self._waiting[name]

    def _rank(self) -> Callable[[Work], tuple[float, float]]:
        """Return the key that puts work of the caller that had least first, the urgent before."""
        begun: Counter[str] = Counter()
        for one in self._busy() if len(self._waiting) > 1 else ():
            begun[one.caller.name] += one.seconds / one.caller.weight  # type: ignore[assignment]

        def rank(work: Work) -> tuple[float, float]:
            caller = work.ticket.caller
            return self._served(caller) + begun[caller.name], work.urgency

        return rank

    def _number(self) -> None:
        """Report to every waiting request its position, and when it should be finished."""
        wait = sum(one.seconds for one in self._busy()) if self._waiting else 0.0
        for position, work in enumerate(self.ordered):
            work.ticket.progress = Progress("queued", 0, work.steps, position, wait + work.seconds)
            wait += work.share_s


def has_room(
    active: Sequence[Candidate[Any]],
    tasks: Iterable[Task],
    following: Work,
    row_limit: Callable[[int], float],
) -> bool:
    """Return whether to prepare another request.

    Some batches are prepared ahead, as many again for a request that is much shorter than some row,
    and as many again for a caller of whom nothing is being served: whatever others have sent, there
    is room for that one.

    Args:
        active: the rows that take steps, and those that wait to be decoded.
        tasks: some hold rows that wait for them, or are about to make some.
        following: the next request in the queue.
        row_limit: denoiser rows of a call, by latent area.
    """
    held, caller = [task for task in tasks if task.held], following.ticket.caller
    load = sum(one.load for one in active) + sum(task.held for task in held)
    areas = [one.key.area for one in active[:1]] + [task.work.area for task in held[:1]]
    pending_s = following.seconds * PATIENCE[following.parameters.priority]
    shorter = any(STRETCH * pending_s < one.pending_s for one in active)
    served = [*(one.work for one in active), *(task.work for task in held)]
    new = all(work.ticket.caller.name != caller.name for work in served)
    return load < AHEAD * row_limit(max(areas, default=1)) * (1 + shorter + 2 * new)


# -- tasks beside the steps -------------------------------------------------------------------


@dataclass(eq=False)
class Task:
    """A task takes turns with the steps: it enlarges, encodes or reviews pictures.

    The engine's thread runs the generator up to its next `yield`, takes steps for at least as long,
    and comes back. So a long task neither stalls the steps nor waits for all of them.

    Attributes:
        work: its urgency says which task goes first.
        tiles: the work, up to each `yield`.
        then: called with what `tiles` returns.
        left_s: estimated seconds of what is left, and of what waits for it.
        stage: as which its seconds are observed.
        held: load of the rows that wait for it.
        counted: called with the seconds of every tile.
    """

    work: Work
    tiles: Generator[None, None, Any]
    then: Callable[[Any], None]
    left_s: Callable[[], float]
    stage: str
    held: float = 0.0
    counted: Callable[[float], None] = lambda seconds: None


class Tasks:
    """These tasks have begun; the engine's thread alone changes them.

    Args:
        served: virtual time of a caller, as `Turns.served`.
    """

    def __init__(self, served: Callable[[Caller], float] = lambda caller: 0.0) -> None:
        self._served = served
        self._all: list[Task] = []
        self._owed = 0.0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Task]:
        return iter(list(self._all))

    def add(self, task: Task) -> None:
        """Add a task, whose first tile is run when it is due."""
        self._all.append(task)

    def drop(self, task: Task) -> None:
        """Forget a task that is done."""
        self._all.remove(task)

    def drop_all(self, work: Work) -> None:
        """Forget the tasks of a request that has ended."""
        self._all = [task for task in self._all if task.work is not work]

    def due(self, *, steps_wait: bool) -> Task | None:
        """Return the most urgent task of the caller that had least, if a task is due.

        Args:
            steps_wait: whether there are steps, to which half of the time belongs.
        """
        if not self._all or (steps_wait and self._owed > 0):
            return None
        return min(
            self._all,
            key=lambda task: (self._served(task.work.ticket.caller), task.work.urgency),
        )

    def took(self, seconds: float) -> None:
        """Count a tile's seconds: the steps get as many next."""
        self._owed = seconds

    def stepped(self, seconds: float) -> None:
        """Count the seconds that steps were run for."""
        self._owed -= seconds
