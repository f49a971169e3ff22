"""Errands: work that takes turns with the steps, such as the tiles of a picture being enlarged.

An errand is a generator; the engine's thread runs it up to its next `yield`, draws for at least as
long, and comes back. So a long errand neither stalls the steps nor waits for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runnables.engine.upscale import UpscaleRequest

if TYPE_CHECKING:
    from runnables.engine.plan import Request
    from runnables.engine.row import Row


@dataclass(eq=False)
class Errand:
    """One piece of work for a request.

    Attributes:
        request: its urgency says which errand goes first.
        turns: the work, up to each `yield`.
        then: called with what `turns` returns.
        row: the row that waits for it.
    """

    request: Request | UpscaleRequest
    turns: Generator[None, None, Any]
    then: Callable[[Any], None]
    row: Row | None = None

    @property
    def upscaler(self) -> str:
        """Whose turns these are."""
        request = self.request
        if isinstance(request, UpscaleRequest):
            return request.upscaler.name
        second = request.second_pass
        return second.upscaler.name if second and second.upscaler else ""

    @property
    def left(self) -> float:
        """Seconds of work left in it and in its row."""
        if isinstance(self.request, UpscaleRequest):
            return self.request.left_s
        return self.request.planner.cost.share(self.row.remaining) if self.row else 0.0


class Errands:
    """Those that have begun. Changed by the engine's thread alone."""

    def __init__(self) -> None:
        self._all: list[Errand] = []
        self._owed = 0.0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Errand]:
        return iter(list(self._all))

    @property
    def rows(self) -> list[Row]:
        """Those that wait for one."""
        return [errand.row for errand in self if errand.row is not None]

    @property
    def requests(self) -> list[Request | UpscaleRequest]:
        """Whose they are."""
        return [errand.request for errand in self]

    def add(self, errand: Errand) -> None:
        """It has its first turn when it is due."""
        self._all.append(errand)

    def drop(self, errand: Errand) -> None:
        """It is done."""
        self._all.remove(errand)

    def drop_all(self, request: Request | UpscaleRequest) -> None:
        """The request has ended, and what is left of its errands is not done."""
        self._all = [errand for errand in self._all if errand.request is not request]

    def due(self, *, drawing: bool) -> Errand | None:
        """The most urgent one, if it is its turn.

        Args:
            drawing: whether steps wait, to which half of the time belongs.
        """
        if not self._all or (drawing and self._owed > 0):
            return None
        return min(self._all, key=lambda errand: errand.request.urgency)

    def took(self, seconds: float) -> None:
        """A turn took so long: as much is owed to the steps."""
        self._owed = seconds

    def drew(self, seconds: float) -> None:
        """Steps were run for so long."""
        self._owed -= seconds
