"""Which rows take the next step: a pure choice, without tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from runnables.engine.batch_key import BatchKey


class Candidate(Protocol):
    """What the choice needs to know of a row."""

    @property
    def key(self) -> BatchKey: ...
    @property
    def urgency(self) -> float: ...
    @property
    def load(self) -> float: ...


C = TypeVar("C", bound=Candidate)


def choose(rows: Sequence[C], limit: Callable[[BatchKey], int]) -> list[C]:
    """The most urgent row, and the most urgent of those that can share its UNet call.

    Urgency is an absolute time (earliest first), so a row that waits only gains on those that come
    after it: nobody starves.

    Args:
        rows: all active rows, at least one.
        limit: UNet rows, or as much other load, that one call may hold, by key. A single row is
            always taken.
    """
    key = min(rows, key=lambda row: row.urgency).key
    room: float = limit(key)
    chosen: list[C] = []
    for row in sorted((row for row in rows if row.key == key), key=lambda row: row.urgency):
        if chosen and row.load > room:
            break
        chosen.append(row)
        room -= row.load
    return chosen
