"""The rows whose turn it is share a call: of the denoiser, or of the VAE at their end."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial

from runnables.accelerators.base import Accelerator
from runnables.engine.active import Active
from runnables.engine.batch import Batch, load_of, signature
from runnables.engine.beside import Beside
from runnables.engine.finish import Finish
from runnables.engine.forecast import Forecast
from runnables.engine.memory import Headroom
from runnables.engine.pace import Launch, Pace
from runnables.engine.report import report
from runnables.engine.row import Row
from runnables.engine.scheduling import Turns
from runnables.engine.watch import Observe, spared

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Steps:
    """The engine's thread takes the steps.

    Args:
        headroom: told of every call that ran out of memory, or did not.
        finish: takes the rows that a step has denoised, and decodes them.
        beside: makes previews.
        beat: called with the seconds that a step should take, before it.
        clock: in seconds.
    """

    active: Active
    accelerator: Accelerator
    turns: Turns[Row]
    forecast: Forecast[Row]
    headroom: Headroom
    finish: Finish
    beside: Beside
    _: KW_ONLY
    beat: Callable[[float], None]
    observe: Observe
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self._pace = Pace(partial(self.observe, "denoise"))
        self._batch: Batch | None = None

    def forget(self) -> None:
        """Let go of the last step's rows and model."""
        self._batch = None

    def take(self) -> None:
        """Run a call of the rows whose turn it is, and count what that took."""
        candidates = self.turns.mixed(self.active.candidates)
        chosen, started = self.turns.choose(candidates), self.clock()
        rows = [one.row for one in chosen]
        if chosen[0].key.decoding:
            self.finish.decode(rows)
        else:
            self.step(rows)
        self.turns.took(chosen, candidates, self.clock() - started)

    def step(self, rows: list[Row]) -> None:
        """Run one denoiser call; when it fails, retry each row alone, so that only one ends."""
        begun = self.accelerator.mark()
        works = {row.work: None for row in rows}
        self.active.blamed = [*works]
        model, calls = rows[0].work.model, sum(row.denoiser_rows for row in rows)
        load, area = load_of(rows)
        self.beat(model.cost.step(load, area))
        try:
            batch = self._stacked(rows)
            done = batch.step()
        except Exception as error:
            self._batch = None
            self._recover(error, rows)
            return
        ended = self.accelerator.mark()
        self._pace.launched(Launch(begun, ended, model.cost, calls, load, area))
        self.headroom.succeeded()
        candidates = self.active.candidates
        for work in works:
            with spared("reporting progress"):
                report(work, batch, candidates, self.forecast, self.beside)
        if done:
            self.finish.denoised(done)

    def _stacked(self, rows: list[Row]) -> Batch:
        if self._batch is None or self._batch.signature != signature(rows):
            self._batch = Batch(rows, self.accelerator)
        return self._batch

    def _recover(self, error: Exception, rows: list[Row]) -> None:
        traceback.clear_frames(error.__traceback__)  # they hold the failed call's tensors
        if self.accelerator.is_out_of_memory(error):
            self.accelerator.free_memory()
            self.headroom.exhausted()
            logger.warning("out of memory at %d rows: smaller batches for a while", len(rows))
        if len(rows) == 1:
            self.active.fail(rows[0].work, error)
            return
        for row in rows:
            if row in self.active.rows:  # an earlier row of the same request may have ended it
                self.step([row])
