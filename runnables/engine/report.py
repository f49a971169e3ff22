"""A request's progress is reported after every step, with an estimate and perhaps a preview."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from runnables.accelerators.base import T
from runnables.engine.batch import Batch
from runnables.engine.beside import Beside
from runnables.engine.denoise import Denoise
from runnables.engine.forecast import Forecast
from runnables.engine.row import Row
from runnables.engine.scheduling import Candidate
from runnables.ticket import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)


def report(
    work: Denoise,
    batch: Batch,
    candidates: Sequence[Candidate[Row]],
    forecast: Forecast[Row],
    beside: Beside,
) -> None:
    """Report a request's progress.

    Args:
        batch: that has just made a step, with rows of this request.
        candidates: all rows that take steps or wait to be decoded.
        beside: makes previews.
    """
    own = [one for one in candidates if one.work is work]
    step = min(one.row.done for one in own)
    eta = forecast.seconds(work, candidates)
    ticket = work.ticket
    every = ticket.preview_every  # read once: others may change it
    made = _taken(work)
    if every and work.preview is None and (make := _preview(own[0].row, batch, every)):
        work.preview = beside.make(own[0].row.stage.family, make), step
        made = _taken(work) or made  # on a CPU it is there already
    preview, previewed = made or (None, 0)
    ticket.progress = Progress("drawing", step, work.steps, 0, eta, preview, previewed)
    if ticket.on_step is not None:
        ticket.on_step(ticket.progress)


def _taken(work: Denoise) -> tuple[Image | None, int] | None:
    """Return a preview that is finished, each one once, with its step."""
    if work.preview is None or not work.preview[0].done():
        return None
    (made, step), work.preview = work.preview, None
    return made.result(), step


def _preview(row: Row, batch: Batch, every: int) -> Callable[[], Image | None] | None:
    """Return what makes a preview at every n-th step, except after the last step of a stage."""
    if row.step in (0, row.steps) or row.done % every or row not in batch.rows:
        return None
    output = batch.output(row)
    makes = (_spared(partial(one.preview, row, output)) for one in row.work.model.extensions)
    make = next((make for make in makes if make is not None), None)
    return make and partial(_spared, make)


def _spared(call: Callable[[], T]) -> T | None:
    """Return what a call returns, or None where it fails: a preview must never cost the image."""
    try:
        return call()
    except Exception:
        logger.exception("a preview could not be made")
        return None
