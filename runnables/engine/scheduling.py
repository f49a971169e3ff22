"""This module has all policy of the engine: who is admitted, who waits, who takes the next step.

Urgency is an absolute time: a request may wait a multiple of its own time before others of its
class overtake it. So a waiting request goes before those that come much later, and every request is
served in the end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from runnables.engine.work import Work
from runnables.errors import NotReady, OverCapacity
from runnables.parameters import Priority
from runnables.ticket import Progress, Ticket

#: how many times its own time a request may wait before others of its class overtake it
PATIENCE: Mapping[Priority, float] = {"high": 1.0, "normal": 4.0, "low": 16.0}
AHEAD = 2  # how many full batches of rows are prepared and kept in memory


def urgency(ticket: Ticket, seconds: float, expires: float) -> float:
    """Return the time.monotonic at which a request that takes so long alone should be served."""
    wait = PATIENCE[ticket.parameters.priority] * seconds
    return min(ticket.submitted + wait, expires - seconds)


# -- the next step ----------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchKey:
    """Two rows share a denoiser call if their keys are equal; all else may differ.

    Attributes:
        family: the loaded model's number: the refiner is another than its base.
        height, width: of the latents.
        tokens: length of the text conditioning.
        acting: the extensions that act at this step and cannot share it with others.
    """

    family: int
    height: int
    width: int
    tokens: int
    acting: frozenset[str] = frozenset()

    @property
    def area(self) -> int:
        """Return the latent positions of one row."""
        return self.height * self.width


class Candidate(Protocol):
    """A candidate has what the choice needs to know of a row."""

    @property
    def key(self) -> BatchKey: ...
    @property
    def urgency(self) -> float: ...
    @property
    def load(self) -> float: ...


C = TypeVar("C", bound=Candidate)


def choose(rows: Sequence[C], limit: Callable[[C], float]) -> list[C]:
    """Return the most urgent row, and the most urgent of those that can share its denoiser call.

    Args:
        rows: all active rows, at least one.
        limit: denoiser rows, or as much other load, that a call with this row may hold. A single
            row is always taken.
    """
    first = min(rows, key=lambda row: row.urgency)
    room, key = limit(first), first.key
    chosen: list[C] = []
    for row in sorted((row for row in rows if row.key == key), key=lambda row: row.urgency):
        if chosen and row.load > room:
            break
        chosen.append(row)
        room -= row.load
    return chosen


# -- admission --------------------------------------------------------------------------------


class Queue:
    """The queue holds accepted work that has not begun, most urgent first; it is thread-safe.

    Args:
        max_wait: seconds of estimated waiting beyond which requests are refused.
        busy: seconds of work in what is being generated.
    """

    def __init__(self, max_wait: float, busy: Callable[[], float]) -> None:
        self._max_wait = max_wait
        self._busy = busy
        self._waiting: list[Work] = []
        self._changed = threading.Condition()
        self.closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first_urgency(self) -> float:
        """Return the urgency of the next request; infinity where none waits."""
        with self._changed:
            return self._waiting[0].urgency if self._waiting else math.inf

    def admit(self, work: Work) -> None:
        """Admit a request.

        Raises:
            NotReady: the service is draining.
            OverCapacity: it would wait longer than allowed, or past its own deadline.
        """
        with self._changed:
            if self.closed:
                raise NotReady("the service is stopping and takes no new requests")
            ahead = [other for other in self._waiting if other.urgency <= work.urgency]
            wait = self._busy() + sum(other.share_s for other in ahead)
            room = min(self._max_wait, work.expires - time.monotonic() - work.seconds)
            if wait > max(room, 0.0) and wait > 0:
                raise OverCapacity(
                    f"about {wait:.0f} s of work are ahead; try again later",
                    retry_after=wait - max(room, 0.0),
                )
            self._waiting.append(work)
            self._waiting.sort(key=lambda other: other.urgency)
            self._number()
            self._changed.notify_all()

    def take(self) -> Work | None:
        """Remove and return the most urgent request that waits."""
        with self._changed:
            work = self._waiting.pop(0) if self._waiting else None
            self._number()
            return work

    def discard(self, ended: Callable[[Work], bool]) -> list[Work]:
        """Take out the requests that have ended while they waited (cancelled, expired)."""
        with self._changed:
            out = [work for work in self._waiting if ended(work)]
            if out:
                self._waiting = [work for work in self._waiting if work not in out]
                self._number()
            return out

    def close(self) -> None:
        """Refuse all further requests."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wake(self) -> None:
        """End a `wait`, because there is something else to do."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Sleep until something is admitted, or the queue is being closed, or the timeout."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(timeout)

    def _number(self) -> None:
        """Report to every waiting request its position, and when it should be finished."""
        wait = self._busy() if self._waiting else 0.0
        for position, work in enumerate(self._waiting):
            work.ticket.progress = Progress("queued", 0, work.steps, position, wait + work.seconds)
            wait += work.share_s


def has_room(
    active: Sequence[Candidate],
    held: float,
    taken: Sequence[Work],
    next_urgency: float,
    row_limit: Callable[[int], float],
) -> bool:
    """Return whether to prepare another request: some batches ahead, twice as many if it is urgent.

    Args:
        active: the rows that take steps.
        held: load of the rows that wait for a task.
        taken: what is about to be prepared.
        next_urgency: of the next request in the queue.
        row_limit: denoiser rows of a call, by latent area.
    """
    load = held + sum(row.load for row in active) + sum(work.rows_to_come for work in taken)
    areas = [row.key.area for row in active[:1]] + [work.area for work in taken[:1]]
    overtakes = any(next_urgency < row.urgency for row in active)
    return load < AHEAD * row_limit(max(areas, default=1)) * (1 + overtakes)


# -- tasks beside the steps -------------------------------------------------------------------


@dataclass(eq=False)
class Task:
    """A task takes turns with the steps, such as the tiles of a picture being enlarged.

    The engine's thread runs the generator up to its next `yield`, takes steps for at least as long,
    and comes back. So a long task neither stalls the steps nor waits for all of them.

    Attributes:
        work: its urgency says which task goes first.
        tiles: the work, up to each `yield`.
        then: called with what `tiles` returns.
        name: of the upscaler, by which its speed is learnt.
        left_s: estimated seconds of what is left, and of what waits for it.
        held: load of the row that waits for it.
        counted: called after every tile.
    """

    work: Work
    tiles: Generator[None, None, Any]
    then: Callable[[Any], None]
    name: str
    left_s: Callable[[], float]
    held: float = 0.0
    counted: Callable[[], None] = lambda: None


class Tasks:
    """These tasks have begun; the engine's thread alone changes them."""

    def __init__(self) -> None:
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
        """Return the most urgent task, if a task is due.

        Args:
            steps_wait: whether there are steps, to which half of the time belongs.
        """
        if not self._all or (steps_wait and self._owed > 0):
            return None
        return min(self._all, key=lambda task: task.work.urgency)

    def took(self, seconds: float) -> None:
        """Count a tile's seconds: the steps get as many next."""
        self._owed = seconds

    def stepped(self, seconds: float) -> None:
        """Count the seconds that steps were run for."""
        self._owed -= seconds
