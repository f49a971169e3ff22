"""Steps are launched one ahead of the device, and are timed by the device's own marks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from runnables.accelerators.base import Mark
from runnables.engine.cost import CostModel

AHEAD = 1  # steps that the device may have in its queue behind the one that it runs


@dataclass(frozen=True)
class Launch:
    """A launch is a step that the device was asked for; it holds no model and no row.

    Attributes:
        begun, ended: around the step, in the device's queue.
        rows: of the denoiser's call.
        load: the same, with what extensions add as fractions.
        area: latent positions of a row.
    """

    begun: Mark
    ended: Mark
    cost: CostModel
    rows: int
    load: float
    area: int


class Pace:
    """The pace keeps the device busy while Python prepares the next step, and no further ahead.

    It corrects the cost model by every step's seconds, and calls `observe(seconds, rows)`.
    """

    def __init__(self, observe: Callable[[float, int], None]) -> None:
        self._observe = observe
        self._launched: deque[Launch] = deque()

    def launched(self, launch: Launch) -> None:
        """Count a step; wait for the one before it, where the device is as far behind."""
        self._launched.append(launch)
        while self._launched and self._is_over(self._launched[0]):
            over = self._launched.popleft()
            seconds = over.ended.seconds_since(over.begun)
            over.cost.observe_step(over.load, over.area, seconds)
            self._observe(seconds, over.rows)

    def _is_over(self, launch: Launch) -> bool:
        if len(self._launched) > AHEAD:
            launch.ended.wait()
        return launch.ended.passed()
