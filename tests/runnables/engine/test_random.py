"""Requests of every kind join, are cancelled, fail or lose their model: each ends exactly once."""

from __future__ import annotations

import gc
import random
import time
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from runnables.accelerators.cpu.device import Cpu
from runnables.accelerators.graphs import DenoiserCall, Graphs
from runnables.accelerators.graphs import Inputs as GraphInputs
from runnables.engine import outcome
from runnables.engine.batch import Batch
from runnables.engine.row import Row
from runnables.errors import Cancelled, GenerationFailed
from runnables.families.base import Family
from runnables.parameters import (
    AnyParameters,
    Hires,
    ImageToImage,
    Inpaint,
    TextToImage,
    Upscale,
)
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Caller, Inputs, Load, Ticket
from tests.insides import engine_of
from tests.long import LONG
from tests.runnables.accelerators.test_graphs import Recorded

Start = Callable[..., StableDiffusionRunnable]
Kind = tuple[AnyParameters, Inputs]
REQUESTS = 500 if LONG else 60
#: of which calls are replayed: each capture takes a second or two
REPLAYED = 500 if LONG else 30
BROKEN = 13.0  # a row with this guidance scale fails


def kinds(photo: Image.Image, mask: Image.Image) -> list[Kind]:
    """Return requests of every kind, some for the second model."""
    samplers = ["ddim", "euler_a", "dpmpp_2m", "unipc", "heun", "lms"]
    found: list[Kind] = []
    for seed, sampler in enumerate(samplers):
        common: dict[str, Any] = {"prompt": "a cat", "seed": seed, "scheduler": sampler}
        steps, model = 1 + seed, "other" if seed % 2 else None
        found += [
            (TextToImage(num_inference_steps=steps, model=model, **common), Inputs()),
            (TextToImage(num_inference_steps=2, num_images_per_prompt=3, **common), Inputs()),
            (ImageToImage(num_inference_steps=4, model=model, **common), Inputs(photo)),
        ]
    common = {"prompt": "a cat", "seed": 7, "num_inference_steps": 3}
    hires = Hires(upscaler="lanczos", scale=1.5)
    return [
        *found,
        (Inpaint(**common), Inputs(photo, mask)),
        (TextToImage(hires=hires, **common), Inputs()),
        (Upscale(), Inputs(photo)),
    ]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that hold a broken row raise."""
    original = Batch.step

    def step(batch: Batch) -> list[Row]:
        if any(row.stage.guidance_scale == BROKEN for row in batch.rows):
            raise RuntimeError("injected")
        return original(batch)

    monkeypatch.setattr(Batch, "step", step)
    # pytest keeps what is logged, and with an error's traceback all that its frames hold
    monkeypatch.setattr(outcome.logger, "disabled", True)


def replaying(monkeypatch: pytest.MonkeyPatch, room: int) -> tuple[Counter[int], Graphs]:
    """Keep so many graphs from now on; return them, and how many each model was captured for."""
    captured: Counter[int] = Counter()

    def denoise(self: Cpu, family: Family, *given: Any) -> Tensor:
        number = family.number  # the model itself must be free to go

        def capture(call: DenoiserCall, inputs: GraphInputs) -> Recorded:
            captured[number] += 1
            return Recorded(call, inputs)

        graphs._capture = capture
        return graphs.denoise(family, *given)

    graphs = Graphs(Recorded, room * Recorded.nbytes)
    monkeypatch.setattr(Cpu, "denoise", denoise)
    monkeypatch.setattr(Cpu, "buckets", (4, 32))
    return captured, graphs


def pictures(ticket: Ticket) -> list[np.ndarray]:
    images = ticket.future.result(timeout=1200).images
    return [np.asarray(one.image).astype(int) for one in images]


def check(ticket: Ticket, expected: list[np.ndarray] | None) -> None:
    """Check how a request ended; `expected` is None of a broken one."""
    error = ticket.future.exception(timeout=1200)
    if error is None:
        assert expected is not None, "a broken row ended well"
        for generated, picture in zip(pictures(ticket), expected, strict=True):
            assert np.abs(generated - picture).max() <= 2
    else:
        assert isinstance(error, Cancelled if ticket.cancelled else GenerationFailed)
        assert ticket.cancelled or expected is None, error


def all_gone(works: list[weakref.ref[Any]]) -> bool:
    end = time.monotonic() + 300
    while any(work() for work in works) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.1)
    return not any(work() for work in works)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("requests", "room"), [(REQUESTS, 0), (REPLAYED, 4)])
def test_random_joins_cancels_failures_and_evictions(
    tiny_model: Callable[[str], Path],
    start: Start,
    photo: Image.Image,
    mask: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    requests: int,
    room: int,
) -> None:
    """What ends well has the image that the same request gives alone; all memory is returned.

    With `room` for some graphs, denoiser calls are replayed as on a GPU.
    """
    rng, ends, works = random.Random(0), Counter[str](), list[weakref.ref[Any]]()
    limits = {"max_queue_s": 3600, "request_timeout_s": 3600}
    runnable = start("sd1", models=f"other={tiny_model('sd1')}", **limits)
    possible = kinds(photo, mask)
    alone = [pictures(runnable.submit(*kind)) for kind in possible]
    replayed = replaying(monkeypatch, room) if room else None
    tickets: list[tuple[int, Ticket]] = []
    for number in range(requests):
        index = rng.randrange(len(possible))
        parameters, inputs = possible[index]
        bad = rng.random() < 0.1 and not isinstance(parameters, Upscale)
        if bad:
            parameters = parameters.model_copy(update={"guidance_scale": BROKEN})
        ticket = runnable.submit(parameters, inputs, caller=Caller(rng.choice("abc")))
        ticket.future.add_done_callback(lambda _, id=ticket.id: ends.update([id]))
        tickets.append((-1 if bad else index, ticket))
        if rng.random() < 0.2:
            rng.choice(tickets)[1].cancel()
        if rng.random() < 0.1:
            time.sleep(0.01)
        works += [weakref.ref(work) for work in engine_of(runnable)._active.works]
        if number % 20 == 10:  # it goes once its requests are finished, and later ones load it
            engine_of(runnable)._pool.order("other", load=False)
    for index, ticket in tickets:
        check(ticket, alone[index] if index >= 0 else None)
    assert set(ends.values()) == {1} and len(ends) == requests
    assert runnable.load() == Load()
    tickets.clear()
    assert works and all_gone(works), "rows or pictures are kept"
    if replayed:
        captured, graphs = replayed
        loaded = {model.base.number for model in engine_of(runnable)._pool.loaded.values()}
        assert captured.total() > room >= len(graphs) and captured.keys() - loaded
        assert {number for number, _ in graphs._graphs} <= loaded, "a graph outlives its model"
