"""Denoised rows are decoded here, and enlarged for a second pass or delivered to the caller."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from dataclasses import KW_ONLY, dataclass
from functools import partial

from torch import Tensor

from runnables.accelerators.base import Accelerator
from runnables.engine.active import Active, share_of
from runnables.engine.beside import Beside
from runnables.engine.decode import Pixels, chunk_size, decode, to_image
from runnables.engine.denoise import Denoise
from runnables.engine.forecast import Forecast
from runnables.engine.hires import SecondPass
from runnables.engine.row import Row
from runnables.engine.scheduling import Task, Turns
from runnables.engine.watch import Observe, spared
from runnables.errors import GenerationFailed
from runnables.extensions.base import Extension
from runnables.extensions.safety import Policy, filtered
from runnables.families.text.prompts import hint_of
from runnables.ticket import GeneratedImage, Progress, Result, settle

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Finish:
    """The engine's thread brings rows to their end, and hands pixels to the image threads.

    Args:
        policy: what becomes of images that an extension objects to.
        images: makes images of pixels.
        beat: called with the seconds that the next work should take.
        clock: in seconds, of the same kind as a ticket's `submitted`.
    """

    active: Active
    accelerator: Accelerator
    beside: Beside
    turns: Turns[Row]
    forecast: Forecast[Row]
    policy: Policy
    images: Executor
    _: KW_ONLY
    beat: Callable[[float], None]
    observe: Observe
    clock: Callable[[], float]

    def denoised(self, done: list[Row]) -> None:
        """Take rows that are denoised: they are decoded soon, or begin a second pass now."""
        active = self.active
        for row in done:
            if row not in active.rows:  # its request has failed with another row
                continue
            row.work.clock["denoised"] = self.clock()
            if row.second_pass and row.second_pass.upscaler is None:
                active.rows.remove(row)
                self._take(row, None)
            elif self.accelerator.decodes_beside(row.stage.family):
                active.rows.remove(row)
                active.aside.append(row)
        self._begin_beside()

    def collect(self) -> None:
        """Take what was decoded beside the steps; what failed there is decoded here."""
        active = self.active
        for rows, pixels, seconds in self.beside.decoded():
            mine = [row in active.aside for row in rows]  # others have ended meanwhile
            active.blamed = [row.work for row in rows]
            active.aside = [row for row in active.aside if row not in rows]
            if pixels is None:
                active.rows += [row for row, open in zip(rows, mine, strict=True) if open]
                continue
            self._decoded(rows, seconds)
            for row in rows:
                self.turns.charge(row.work.ticket.caller, seconds / len(rows))
            for row, picture, open in zip(rows, pixels, mine, strict=True):
                if open:
                    self._take(row, picture)
        active.blamed = []  # they have what they came for
        self._begin_beside()

    def _begin_beside(self) -> None:
        """Have the images whose turn it is decoded beside the steps."""
        while self.beside.has_room:
            begun = self.beside.rows
            waiting = [one for one in self.active.finished if one.row not in begun]
            if not waiting:
                return
            ordered = self.turns.ordered(waiting)
            first, key = ordered[0].row, ordered[0].key
            size = chunk_size(first, key.area, self.accelerator)
            self.beside.begin([one.row for one in ordered if one.key == key][:size])

    def decode(self, rows: list[Row]) -> None:
        """Decode rows of one size and model together, and end the requests that are complete."""
        active, started = self.active, self.clock()
        active.blamed = list({row.work: None for row in rows})
        self.beat(rows[0].work.model.cost.decode(len(rows), rows[0].key.area))
        for row in rows:
            active.rows.remove(row)
        with self.beside.vae:
            decoded = list(decode(rows, self.accelerator))
        self._decoded(rows, self.clock() - started)
        for row, pixels in decoded:
            self._take(row, pixels)

    def _decoded(self, rows: list[Row], seconds: float) -> None:
        """Learn how long a decode took."""
        with spared("measuring a decode"):
            rows[0].work.model.cost.observe_decode(len(rows), rows[0].key.area, seconds)
        self.observe("decode", seconds, len(rows))

    def _take(self, row: Row, pixels: Pixels | None) -> None:
        """Take a row with its decoded image, or without where its second pass needs none."""
        work = row.work
        if work.ticket.future.done():
            return
        try:
            if isinstance(pixels, Exception):
                raise pixels
            if row.second_pass:
                self._begin_second(row, row.second_pass, pixels)
                return
            assert pixels is not None
            work.finished[row.seed] = pixels
            if len(work.finished) == len(work.seeds):
                self._end(work)
        except Exception as error:
            self.active.fail(work, error)

    def _begin_second(self, row: Row, second: SecondPass, pixels: Tensor | None) -> None:
        """Begin the second pass, of the decoded picture where there is one."""
        if pixels is None or second.upscaler is None:
            self._continue(row, second.from_latents(row.latents, row.start.generator))
            return
        tiles = second.from_picture(to_image(pixels), row.start.generator)
        left, then = partial(share_of, row), partial(self._continue, row)
        learn = partial(row.work.model.cost.observe_turn, second.upscaler.name)
        task = Task(row.work, tiles, then, left, "upscale", held=row.load, counted=learn)
        self.active.tasks.add(task)

    def _continue(self, row: Row, sample: Tensor) -> None:
        row.begin_next(sample)
        self.active.rows.append(row)

    # -- results ----------------------------------------------------------------------------

    def _end(self, work: Denoise) -> None:
        """Have the images of a complete request reviewed, and pass them on."""
        self.forecast.ended(work)
        work.ticket.progress = Progress("decoding", work.steps, work.steps)
        reviewers = [one for one in work.model.extensions if one.reviews(work.parameters)]
        if reviewers:
            tiles, then = _review(work, reviewers), partial(self._pass_on, work)
            self.active.tasks.add(Task(work, tiles, then, lambda: 0.0, "safety"))
        else:
            self._pass_on(work, set())

    def _pass_on(self, work: Denoise, objections: set[int]) -> None:
        """Pass a request's pixels to the image threads."""
        clock = work.clock
        timings = {
            "queue": clock["taken"] - work.ticket.submitted,
            "encode": clock["prepared"] - clock["taken"],
            "denoise": clock["denoised"] - clock["prepared"],
            "decode": self.clock() - clock["denoised"],
        }
        self.images.submit(_deliver, work, timings, objections, self.policy)


def _review(work: Denoise, reviewers: Sequence[Extension]) -> Generator[None, None, set[int]]:
    """Return the seeds of the images that an extension objects to; yield after each image."""
    flagged = set()
    for seed, pixels in sorted(work.finished.items()):
        pictures = [to_image(pixels)]
        if any(any(one.review(work.parameters, pictures)) for one in reviewers):
            flagged.add(seed)
        yield
    return flagged


def _deliver(work: Denoise, timings: dict[str, float], flagged: set[int], policy: Policy) -> None:
    """Turn pixels into images and end the future, in an image thread."""
    try:
        images = []
        hint = hint_of(work.parameters, work.model.base.checkpoint)
        for seed, pixels in sorted(work.finished.items()):
            image = to_image(pixels)
            if seed in flagged:
                image = filtered(image, policy)
                images.append(GeneratedImage(image, seed, "content_filtered", hint))
            else:
                images.append(GeneratedImage(image, seed, hint=hint))
        settle(work.ticket, Result(tuple(images), work.parameters, timings, work.cost_units))
    except Exception as error:
        logger.exception("an image could not be made")
        settle(work.ticket, GenerationFailed(f"the image could not be made: {error}"))
    finally:
        work.release()
