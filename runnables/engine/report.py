"""A request's progress is reported after every step, with an estimate and perhaps a preview."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runnables.engine.batch import Batch
from runnables.engine.denoise import Denoise
from runnables.engine.row import Row
from runnables.engine.scheduling import Candidate, Forecast
from runnables.ticket import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)


def report(
    work: Denoise, batch: Batch, candidates: Sequence[Candidate[Row]], forecast: Forecast[Row]
) -> None:
    """Report a request's progress.

    Args:
        batch: that has just made a step, with rows of this request.
        candidates: all rows that take steps.
    """
    own = [one for one in candidates if one.work is work]
    step = min(one.row.done for one in own)
    eta = forecast.seconds(max(own, key=lambda one: one.calls), candidates)
    ticket = work.ticket
    every = ticket.preview_every  # read once: others may change it
    preview = _preview(own[0].row, batch, every) if every else None
    ticket.progress = Progress("drawing", step, work.steps, 0, eta, preview)
    if ticket.on_step is not None:
        ticket.on_step(ticket.progress)


def _preview(row: Row, batch: Batch, every: int) -> Image | None:
    """Return a preview at every n-th step, except after the last step of a stage."""
    if row.step in (0, row.steps) or row.done % every or row not in batch.rows:
        return None
    try:
        previews = (one.preview(row, batch.output(row)) for one in row.work.model.extensions)
        return next((preview for preview in previews if preview is not None), None)
    except Exception:  # a preview must never cost the image
        logger.exception("a preview could not be made")
        return None
