"""Denoised rows are decoded here, and enlarged for a second pass or delivered to the caller."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from torch import Tensor

from runnables.accelerators.base import Accelerator
from runnables.engine.active import Active, share_of
from runnables.engine.decode import decode, to_image
from runnables.engine.denoise import Denoise
from runnables.engine.outcome import settle
from runnables.engine.row import Row
from runnables.engine.scheduling import Forecast, Task
from runnables.engine.watch import Observe, spared
from runnables.errors import GenerationFailed
from runnables.extensions.safety import Policy, filtered
from runnables.ticket import GeneratedImage, Progress, Result

logger = logging.getLogger(__name__)


class Finish:
    """The engine's thread brings rows to their end, and hands pixels to the image threads.

    Args:
        policy: what becomes of images that an extension objects to.
        images: makes images of pixels.
        clock: in seconds, of the same kind as a ticket's `submitted`.
    """

    def __init__(
        self,
        active: Active,
        accelerator: Accelerator,
        forecast: Forecast[Row],
        policy: Policy,
        images: Executor,
        *,
        observe: Observe,
        clock: Callable[[], float],
    ) -> None:
        self._active = active
        self._accelerator = accelerator
        self._forecast = forecast
        self._policy = policy
        self._images = images
        self._observe = observe
        self._clock = clock

    def rows(self, done: list[Row]) -> None:
        """Decode denoised rows together, and end the requests that are complete."""
        self._active.blamed = list({row.work: None for row in done})
        for row in done:
            self._active.rows.remove(row)
        if last := [row for row in done if row.second_pass is None]:
            self._decode(last)
        self._enlarge([row for row in done if row not in last])

    def _enlarge(self, rows: list[Row]) -> None:
        """Begin the second pass of rows that have ended their first, or the task before it."""
        pictured = [row for row in rows if row.second_pass and row.second_pass.upscaler]
        started = self._clock()
        for row, pixels in decode(pictured, self._accelerator):
            self._begin_second(row, pixels)
        if pictured:
            self._observe("decode", self._clock() - started, len(pictured))
        for row in rows:
            if row not in pictured:
                self._begin_second(row, None)

    def _begin_second(self, row: Row, pixels: Tensor | Exception | None) -> None:
        """Begin the second pass, with the decoded picture where the pass is made of that."""
        second, work = row.second_pass, row.work
        if second is None or work.ticket.future.done():
            return
        try:
            if isinstance(pixels, Exception):
                raise pixels
            if pixels is None:
                self._continue(row, second.from_latents(row.latents, row.start.generator))
                return
            tiles = second.from_picture(to_image(pixels), row.start.generator)
            name = second.upscaler.name if second.upscaler else ""
            left = partial(share_of, row)
            then = partial(self._continue, row)
            self._active.tasks.add(Task(work, tiles, then, name, left, held=row.load))
        except Exception as error:
            self._active.fail(work, error)

    def _continue(self, row: Row, sample: Tensor) -> None:
        row.begin_next(sample)
        self._active.rows.append(row)

    def _decode(self, done: list[Row]) -> None:
        started = self._clock()
        model = done[0].work.model  # rows of one call are of one model
        for row, pixels in decode(done, self._accelerator):
            work = row.work
            if work.ticket.future.done():
                continue
            if isinstance(pixels, BaseException):
                self._active.fail(work, pixels)
                continue
            work.finished[row.seed] = pixels
            if len(work.finished) == len(work.seeds):
                try:
                    self._end(work, self._clock() - started)
                except Exception as error:  # the safety checker's: nothing goes out unchecked
                    self._active.fail(work, error)
        seconds = self._clock() - started
        with spared("measuring a decode"):
            model.cost.observe_decode(len(done), done[0].key.area, seconds)
        self._observe("decode", seconds, len(done))

    def _end(self, work: Denoise, decode_s: float) -> None:
        """Pass a request whose images are all decoded to the image threads."""
        clock = work.clock
        self._forecast.ended(work)
        objections = self._flagged(work)
        timings = {
            "queue": clock["taken"] - work.ticket.submitted,
            "encode": clock["prepared"] - clock["taken"],
            "denoise": self._clock() - decode_s - clock["prepared"],
            "decode": decode_s,
        }
        work.ticket.progress = Progress("decoding", work.steps, work.steps)
        self._images.submit(_deliver, work, timings, objections, self._policy)

    def _flagged(self, work: Denoise) -> set[int]:
        """Return the seeds of the images that an extension objects to."""
        started, seeds = self._clock(), sorted(work.finished)
        pictures = [to_image(work.finished[seed]) for seed in seeds]
        opinions = [one.review(work.parameters, pictures) for one in work.model.extensions]
        known = [opinion for opinion in opinions if opinion is not None]
        if not known:
            return set()
        self._observe("safety", self._clock() - started, len(seeds))
        every = zip(seeds, zip(*known, strict=True), strict=True)
        return {seed for seed, flags in every if any(flags)}


def _deliver(work: Denoise, timings: dict[str, float], flagged: set[int], policy: Policy) -> None:
    """Turn pixels into images and end the future, in an image thread."""
    try:
        images = []
        hint = work.model.base.checkpoint.hint(work.parameters.prompt)
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
