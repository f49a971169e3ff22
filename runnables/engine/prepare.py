"""Accepted requests become rows: their prompts are encoded together, their latents started."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from runnables.engine.denoise import Denoise, pure_noise
from runnables.engine.prompts import Prompts
from runnables.engine.row import Row, Stage
from runnables.extensions.base import Active, Pass
from runnables.families.base import Family, Size
from runnables.families.latents import (
    Start,
    from_image,
    from_masked_image,
    from_noise,
    image_to_pixels,
    mask_to_pixels,
)
from runnables.families.text.prompts import Text, texts_of
from runnables.samplers.table import SamplerTable


class Preparer:
    """A preparer makes rows, and keeps the encodings of the last `cache_size` prompts."""

    def __init__(self, cache_size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._prompts = Prompts(cache_size)
        self._clock = clock

    def forget(self, family: Family) -> None:
        """Forget the prompts of a model that is gone."""
        self._prompts.forget(family)

    def free_memory(self) -> None:
        """Forget all prompts."""
        self._prompts.clear()

    def encode(self, works: Sequence[Denoise]) -> None:
        """Encode the prompts of several requests together; one that fails is encoded later."""
        self._prompts.trim()
        for work in works:
            work.clock["taken"] = self._clock()
        with suppress(Exception):  # whoever is to blame fails alone, in `rows`
            self._encode(works)

    def rows(self, work: Denoise) -> Generator[None, None, list[Row]]:
        """Return a request's rows; yield after each picture that is encoded for them."""
        self._encode([work])
        stages, rows = (yield from self._stages(work)), list[Row]()
        for seed, start in _starts(work):
            rows.append(Row(work, seed, stages, start))
            if work.inputs.image is not None:
                yield
        work.clock["prepared"] = self._clock()
        return rows

    def at_once(self, work: Denoise) -> list[Row]:
        """Return a request's rows, without anything in between."""
        tiles = self.rows(work)
        while True:
            try:
                next(tiles)
            except StopIteration as end:
                rows: list[Row] = end.value
                return rows

    def _encode(self, works: Sequence[Denoise]) -> None:
        self._prompts.encode(
            (family, text)
            for work in works
            for family, _ in work.stages
            for text in _texts(work, family)
            if text is not None
        )

    def _stages(self, work: Denoise) -> Generator[None, None, list[Stage]]:
        run = Pass(work.parameters, work.size, work.calls, work.inputs.controls)
        active = yield from _active(work, run)
        first = [self._stage(work, *stage, work.size, active) for stage in work.stages]
        calls = [len(stage.table) for stage in first]
        first = [
            replace(stage, earlier=sum(calls[:number]), calls=sum(calls))
            for number, stage in enumerate(first)
        ]
        second = work.second_pass
        if second is None:
            return first
        run = Pass(work.parameters, second.size, len(second.table), work.inputs.controls)
        active = yield from _active(work, run)
        stage = self._stage(work, second.family, second.table, second.size, active)
        return [*first, replace(stage, calls=len(second.table), second_pass=second)]

    def _stage(
        self,
        work: Denoise,
        family: Family,
        table: SamplerTable,
        size: Size,
        active: tuple[Active, ...],
    ) -> Stage:
        parameters = work.parameters
        scale = parameters.guidance_scale
        text, without = self._prompts.pair(family, *_texts(work, family))
        negative = None
        if without is not None:
            negative = family.condition(without, size, scale, negative=True)
        own = family is work.model.base  # a refiner knows no extensions
        return Stage(
            family,
            table,
            family.condition(text, size, scale, negative=False),
            negative,
            scale,
            parameters.guidance_rescale,
            parameters.guidance_interval,
            active if own else (),
            work.weight if own else 0.0,
            work.extra_rows if own else 0.0,
        )


def _texts(work: Denoise, family: Family) -> tuple[Text, Text | None]:
    """Return the text and, where it is guided, the negative one."""
    text, negative = texts_of(work.parameters, work.text_additions(family)).values()
    return text, negative if work.guided else None


def _active(work: Denoise, run: Pass) -> Generator[None, None, tuple[Active, ...]]:
    """Return what every row carries through this pass for the request's extensions."""
    active = []
    for one, loaded in work.loaded.items():
        active.append((one, (yield from one.part(loaded, run))))
    return tuple(active)


def _starts(work: Denoise) -> Iterator[tuple[int, Start]]:
    """Return each seed with the first latents of its image."""
    (family, table), *_ = work.stages
    inputs = work.inputs
    pixels = image_to_pixels(inputs.image, work.size) if inputs.image else None
    mask = mask_to_pixels(inputs.mask, work.size) if inputs.mask else None
    for seed in work.seeds:
        generator = torch.Generator("cpu").manual_seed(seed)
        if pixels is None:
            yield seed, from_noise(family, work.size, table, generator)
        elif mask is None:
            yield seed, from_image(family, pixels, table, generator)
        else:
            plain = pure_noise(work.parameters)
            start = from_masked_image(family, pixels, mask, table, generator, pure_noise=plain)
            yield seed, start
