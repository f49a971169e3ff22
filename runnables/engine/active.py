"""The engine keeps here what it serves: rows that take steps, and tasks beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runnables.accelerators.base import Accelerator
from runnables.engine.denoise import Denoise
from runnables.engine.outcome import readable
from runnables.engine.row import Row
from runnables.engine.scheduling import BatchKey, Busy, Candidate, Tasks
from runnables.engine.work import Work
from runnables.errors import StableDiffusionError
from runnables.ticket import Caller, settle


class Active:
    """The engine's thread changes what is active; `len` and `busy` are for any thread.

    Attributes:
        rows: the images that take steps, or are decoded in turns with those.
        aside: the images that another thread decodes meanwhile, and those that wait for it.
        tasks: they take turns with the steps.
        blamed: the requests whose work is under way: they end with what it raises.
        suspect: whether an error was no refusal, so that the device has to be checked.

    Args:
        served: virtual time of a caller, as `Turns.served`.
    """

    def __init__(self, accelerator: Accelerator, served: Callable[[Caller], float]) -> None:
        self.rows: list[Row] = []
        self.aside: list[Row] = []
        self.tasks = Tasks(served)
        self.blamed: list[Work] = []
        self.suspect = False
        self._accelerator = accelerator

    def __len__(self) -> int:
        """Return the number of images being generated or enlarged."""
        return len(self.rows) + len(self.aside) + len(self.tasks)

    def busy(self) -> list[Busy]:
        """Return the work that is left in the rows and in the tasks."""
        rows = [*self.rows, *self.aside]
        left: list[tuple[Work, float]] = [(row.work, share_of(row)) for row in rows]
        left += [(task.work, task.left_s()) for task in self.tasks]
        return [Busy(work.ticket.caller, work.urgency, seconds) for work, seconds in left]

    @property
    def candidates(self) -> list[Candidate[Row]]:
        return [_candidate(row) for row in self.rows]

    @property
    def finished(self) -> list[Candidate[Row]]:
        """Return the images of `aside`."""
        return [_candidate(row) for row in self.aside]

    @property
    def works(self) -> list[Work]:
        """Return the requests that are being served."""
        rows = [*self.rows, *self.aside]
        return list(dict.fromkeys([row.work for row in rows] + [task.work for task in self.tasks]))

    def callers(self) -> list[Caller]:
        """Return the callers who are being served."""
        return [work.ticket.caller for work in self.works]

    def fail(self, work: Work, error: BaseException) -> None:
        """End a request with an error, and free its rows."""
        self.suspect |= not isinstance(error, StableDiffusionError)
        self.tasks.drop_all(work)
        self.rows = [row for row in self.rows if row.work is not work]
        self.aside = [row for row in self.aside if row.work is not work]
        settle(work.ticket, readable(error, self._accelerator))
        work.release()

    def drop(self) -> None:
        """Drop all work, of which every request has ended already."""
        for work in [*self.works, *self.blamed]:
            self.tasks.drop_all(work)
            work.release()
        self.rows, self.aside, self.blamed, self.suspect = [], [], [], False


def share_of(row: Row) -> float:
    """Return the seconds that the rest of a row takes on a machine that is busy already."""
    cost = row.work.model.cost
    return cost.share(row.remaining, row.work.steps - row.done) + cost.decode(1, row.key.area)


def seconds_of(one: Candidate[Row], load: float) -> float:
    """Return the estimated seconds of a call with this row that holds so much load."""
    cost = one.row.work.model.cost
    return cost.decode(load, one.key.area) if one.key.decoding else cost.step(load, one.key.area)


def _candidate(row: Row) -> Candidate[Row]:
    work, key = row.work, row.key
    calls, cost = work.steps - row.done, work.model.cost
    left_s = cost.left(row.remaining, calls) + cost.decode(1, key.area)
    added_s = left_s - calls * cost.overhead
    return Candidate(row, work, key, row.load, calls, left_s, added_s, fresh=row.done == 0)


@dataclass(eq=False)
class Coming:
    """An image whose request waits has no row yet."""

    work: Denoise


def coming(works: Iterable[Work], served: Sequence[Candidate[Any]]) -> list[list[Candidate[Any]]]:
    """Return the images of requests that wait, of the models whose rows are being served.

    How long their prompts are is not known yet: as long as those of the rows being served.
    """
    known = {one.work.model: one.key for one in served if not one.key.decoding}
    return [
        [_coming(work, known[work.model]) for _ in work.seeds]
        for work in works
        if isinstance(work, Denoise) and work.model in known
    ]


def _coming(work: Denoise, alike: BatchKey) -> Candidate[Any]:
    cost, calls = work.model.cost, work.steps
    height, width = work.model.base.traits.latents_of(work.size)
    number = work.model.base.number
    key = replace(alike, family=number, height=height, width=width, acting=frozenset())
    left_s = cost.left(work.work / len(work.seeds), calls) + cost.decode(1, key.area)
    added_s = left_s - calls * cost.overhead
    return Candidate(Coming(work), work, key, work.load, calls, left_s, added_s, fresh=True)
