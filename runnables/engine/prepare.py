"""From accepted requests to rows: prompts encoded together, and each image's first latents."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from runnables.engine.plan import Request, pure_noise
from runnables.engine.row import Row, Stage
from runnables.extensions.controlnet.residuals import ControlSet
from runnables.families.base import Pipeline
from runnables.families.latents import Start, from_image, from_masked_image, from_noise
from runnables.families.text.clip import Embedding, Text, lengthen
from runnables.parameters import Inpaint
from runnables.samplers.table import SamplerTable

Key = tuple[int, Text]  # the pipeline's number


class Preparer:
    """Holds the cache of prompt embeddings: the last `cache_size` that were used."""

    def __init__(self, cache_size: int) -> None:
        self._cache_size = cache_size
        self._embeddings: OrderedDict[Key, Embedding] = OrderedDict()

    def prepare(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[Request, list[Row] | Exception]]:
        """Each request with its rows, or with the error that ends it and no other."""
        for request in requests:
            request.clock["taken"] = time.monotonic()
        with suppress(Exception):  # whoever is to blame fails alone, below
            self._encode(requests)
        for request in requests:
            try:
                self._encode([request])
                yield request, self._rows(request)
            except Exception as error:
                yield request, error
            request.clock["prepared"] = time.monotonic()
        self._trim()

    def _encode(self, requests: Iterable[Request]) -> None:
        """Encode the prompts that the cache lacks, one call a pipeline."""
        missing: dict[int, tuple[Pipeline, dict[Text, None]]] = {}
        for request in requests:
            for pipeline, _ in request.stages:
                for text in _texts(request, pipeline):
                    if (pipeline.number, text) not in self._embeddings:
                        missing.setdefault(pipeline.number, (pipeline, {}))[1][text] = None
        for number, (pipeline, texts) in missing.items():
            for text, embedding in zip(texts, pipeline.encode_prompts(list(texts)), strict=True):
                self._embeddings[number, text] = embedding

    def _embedding(self, pipeline: Pipeline, text: Text) -> Embedding:
        key = (pipeline.number, text)
        if key not in self._embeddings:
            (self._embeddings[key],) = pipeline.encode_prompts([text])
        self._embeddings.move_to_end(key)
        return self._embeddings[key]

    def _pair(self, pipeline: Pipeline, request: Request) -> tuple[Embedding, Embedding | None]:
        """The prompt and, where it is guided, the negative prompt, of one length."""
        prompt, *rest = _texts(request, pipeline)
        text = self._embedding(pipeline, prompt)
        if not rest:
            return text, None
        empty = None if rest[0].prompt else pipeline.empty(text)
        if empty is not None:
            return text, empty
        negative = self._embedding(pipeline, rest[0])
        tokens = max(len(text.hidden_states), len(negative.hidden_states))
        if len(text.hidden_states) == len(negative.hidden_states):
            return text, negative
        return (
            lengthen(text, tokens, self._embedding(pipeline, prompt.emptied())),
            lengthen(negative, tokens, self._embedding(pipeline, rest[0].emptied())),
        )

    def _trim(self) -> None:
        while len(self._embeddings) > self._cache_size:
            self._embeddings.popitem(last=False)

    def _rows(self, request: Request) -> list[Row]:
        stages = self._stages(request)
        return [Row(request, seed, stages, _start(request, seed)) for seed in request.seeds]

    def _stages(self, request: Request) -> list[Stage]:
        first = [self._stage(request, *stage, request.size) for stage in request.stages]
        second = request.second_pass
        if second is None:
            return first
        stage = self._stage(request, second.pipeline, second.table, second.size)
        controls = _moved(second.controls, second.pipeline)
        return [*first, replace(stage, second_pass=second, controls=controls)]

    def _stage(
        self, request: Request, pipeline: Pipeline, table: SamplerTable, size: tuple[int, int]
    ) -> Stage:
        parameters = request.parameters
        scale = parameters.guidance_scale or 0.0
        text, without = self._pair(pipeline, request)
        negative = None
        if without is not None:
            negative = pipeline.condition(without, size, scale, negative=True)
        return Stage(
            pipeline,
            table,
            pipeline.condition(text, size, scale, negative=False),
            negative,
            scale,
            parameters.guidance_rescale or 0.0,
            parameters.guidance_interval or (0.0, 1.0),
            parameters.deep_cache_interval,
            request.loras_of(pipeline),
            _moved(request.controls_of(pipeline), pipeline),
        )


def _texts(request: Request, pipeline: Pipeline) -> list[Text]:
    """The prompt and, where the request is guided, the negative prompt, which skips no layers."""
    parameters, syntax = request.parameters, request.parameters.prompt_syntax
    loras, concepts = request.loras_of(pipeline), request.concepts_of(pipeline)
    prompt = Text(parameters.prompt, syntax, parameters.clip_skip, loras, concepts)
    negative = Text(parameters.negative_prompt, syntax, 0, loras, concepts)
    return [prompt, negative] if request.guided else [prompt]


def _moved(controls: ControlSet, pipeline: Pipeline) -> ControlSet:
    """The ControlNets of a stage with their images where the pipeline is, for all its rows."""
    return tuple(
        replace(control, image=control.image.to(pipeline.device, pipeline.dtype))
        for control in controls
    )


def _start(request: Request, seed: int) -> Start:
    """The first latents of the image with this seed."""
    generator = torch.Generator("cpu").manual_seed(seed)
    (pipeline, table), *_ = request.stages
    if request.pixels is None:
        return from_noise(pipeline, request.size, table, generator)
    if not isinstance(request.parameters, Inpaint):
        return from_image(pipeline, request.pixels, table, generator)
    assert request.mask is not None
    return from_masked_image(
        pipeline,
        request.pixels,
        request.mask,
        table,
        generator,
        pure_noise=pure_noise(request.parameters),
    )
