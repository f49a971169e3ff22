"""Every accepted ticket ends exactly once, and alone, however others join, leave or fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from runnables.engine.batch import Batch
from runnables.engine.denoise import plan
from runnables.engine.memory import RECOVERY
from runnables.engine.prepare import Preparer
from runnables.engine.row import Row
from runnables.errors import (
    Cancelled,
    DeadlineExceeded,
    GenerationFailed,
    InvalidInput,
    NotReady,
    OverCapacity,
)
from runnables.families.unet import UNetFamily
from runnables.parameters import AnyParameters, ImageToImage, Inpaint, TextToImage, Upscale
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs, Load, Progress, Result, Ticket
from tests.insides import engine_of, model_of, untraced

Start = Callable[..., StableDiffusionRunnable]


def wanted(steps: int = 6, **options: object) -> TextToImage:
    arguments = {"prompt": "a cat", "num_inference_steps": steps, "seed": 1, **options}
    return TextToImage(**arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runnable(start: Start) -> StableDiffusionRunnable:
    return start("sd1", max_queue_s=3600)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return failing(error, marker): steps that hold a row with this guidance scale raise.

    They do so within the step, after the denoiser's call.
    """
    original = Batch._guide

    def fail(error: Exception, marker: float, largest: int = 0) -> None:
        def guide(batch: Batch, output: torch.Tensor) -> torch.Tensor:
            scales = [row.stage.guidance_scale for row in batch.rows]
            if marker in scales and len(batch.rows) > largest:
                raise error
            return original(batch, output)

        monkeypatch.setattr(Batch, "_guide", guide)

    return fail


def test_progress_counts_every_step(runnable: StableDiffusionRunnable) -> None:
    seen: list[Progress] = []
    ticket = runnable.submit(wanted(5, scheduler="euler"), on_step=seen.append)
    ticket.future.result(timeout=300)
    assert [progress.step for progress in seen] == [1, 2, 3, 4, 5]
    assert {progress.steps for progress in seen} == {5}
    assert ticket.progress.state == "done"


def test_cancelled_request_ends_and_the_next_is_generated(
    runnable: StableDiffusionRunnable,
) -> None:
    started = threading.Event()
    ticket = runnable.submit(wanted(150), on_step=lambda progress: started.set())
    assert started.wait(300)
    ticket.cancel()
    with pytest.raises(Cancelled):
        ticket.future.result(timeout=300)
    assert ticket.progress.step < 150
    assert runnable.txt2img(wanted()).images


def test_deadline_passes(runnable: StableDiffusionRunnable) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        runnable.txt2img(wanted(150, deadline_s=0.05, num_images_per_prompt=8))
    assert caught.value.loc == ("deadline_s",)


def test_over_capacity_is_refused_with_a_time_to_come_back(start: Start) -> None:
    runnable = start("sd1", max_queue_s=0.05)
    tickets: list[Ticket] = []
    with pytest.raises(OverCapacity) as caught:
        for _ in range(1000):
            tickets.append(runnable.submit(wanted(150, num_images_per_prompt=8)))
    assert caught.value.retry_after >= 1
    assert tickets, "an idle engine lets the first one in"
    for ticket in tickets:
        ticket.cancel()
    for ticket in tickets:
        with pytest.raises(Cancelled):
            ticket.future.result(timeout=300)


def test_urgent_requests_are_generated_first(start: Start) -> None:
    runnable = start("sd1", max_batch=2)
    order: list[str] = []
    tickets = []
    for name in ("low", "low", "normal", "high"):
        ticket = runnable.submit(wanted(60, priority=name))
        ticket.future.add_done_callback(lambda _, name=name: order.append(name))
        tickets.append(ticket)
    for ticket in tickets:
        ticket.future.result(timeout=300)
    assert order.index("high") < order.index("normal") < len(order) - 1
    assert order[-1] == "low"


def test_a_bad_row_fails_alone(
    runnable: StableDiffusionRunnable, failing: Callable[..., None]
) -> None:
    expected = np.asarray(runnable.txt2img(wanted(12, seed=5)).images[0].image).astype(int)
    failing(RuntimeError("broken kernel"), 13.0)
    neighbours = [runnable.submit(wanted(12, seed=5)) for _ in range(3)]
    bad = runnable.submit(wanted(12, guidance_scale=13.0))
    with pytest.raises(GenerationFailed):
        bad.future.result(timeout=300)
    for ticket in neighbours:
        image = ticket.future.result(timeout=300).images[0].image
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 2


@pytest.mark.parametrize(
    ("parameters", "pictures", "field"),
    [
        (TextToImage(prompt="x"), 1, "img"),
        (ImageToImage(prompt="x"), 0, "img"),
        (ImageToImage(prompt="x"), 2, "mask"),
        (Inpaint(prompt="x"), 1, "mask"),
        (Upscale(), 2, "mask"),
    ],
)
def test_pictures_are_those_that_the_task_takes(
    runnable: StableDiffusionRunnable,
    photo: Image.Image,
    mask: Image.Image,
    parameters: AnyParameters,
    pictures: int,
    field: str,
) -> None:
    for call in (runnable.submit, runnable.plan):
        with pytest.raises(InvalidInput) as refused:
            call(parameters, Inputs(*(photo, mask)[:pictures]))
        assert refused.value.loc == (field,)


def test_out_of_memory_shrinks_the_batch(start: Start, failing: Callable[..., None]) -> None:
    runnable = start("sd1")
    failing(torch.cuda.OutOfMemoryError("too much"), 7.5, largest=1)
    tickets = [runnable.submit(wanted(guidance_scale=7.5)) for _ in range(4)]
    assert all(ticket.future.result(timeout=300).images for ticket in tickets)
    assert not engine_of(runnable)._loop._preparer._prompts._embeddings, "they are on the device"
    headroom = engine_of(runnable).headroom
    assert runnable.load().batch_share == headroom.share < 1
    while headroom.share < 1:  # it recovers with calls that go well
        before = headroom.share
        for _ in range(RECOVERY):
            headroom.succeeded()
        assert headroom.share > before


def test_a_request_of_several_images_fails_whole_and_once(
    runnable: StableDiffusionRunnable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its rows fails alone; the others are dropped, and no other request is."""
    original, steps = Batch.step, list[int]()

    def step(batch: Batch) -> object:
        seeds = [row.seed for row in batch.rows]
        if 101 in seeds:
            raise RuntimeError("broken row")
        steps.extend(seeds)
        return original(batch)

    monkeypatch.setattr(Batch, "step", step)
    several = runnable.submit(wanted(30, seed=100, num_images_per_prompt=3))
    neighbour = runnable.submit(wanted(10, seed=7))
    with pytest.raises(GenerationFailed):
        several.future.result(timeout=300)
    assert neighbour.future.result(timeout=300).images
    assert runnable.load() == Load()
    assert 102 not in steps, "its request had ended"


def test_text_encoding_fails_for_one_of_several(
    runnable: StableDiffusionRunnable, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = UNetFamily.encode

    def encode(self: UNetFamily, texts: Any) -> Any:
        if any("unspeakable" in text.prompt for text in texts):
            raise RuntimeError("broken prompt")
        return original(self, texts)

    monkeypatch.setattr(UNetFamily, "encode", encode)
    asked = [wanted(prompt=f"{name} {time.time()}") for name in ("one", "unspeakable", "two")]
    tickets = [runnable.submit(one) for one in asked]
    outcomes = [ticket.future.exception(timeout=300) for ticket in tickets]
    assert [type(one) for one in outcomes] == [type(None), GenerationFailed, type(None)]


def test_a_checker_that_raises_lets_no_image_out(
    runnable: StableDiffusionRunnable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def review(*_: object) -> None:
        raise RuntimeError("broken checker")

    kind = type(model_of(runnable).extensions[0])
    monkeypatch.setattr(kind, "reviews", lambda self, parameters: True)
    monkeypatch.setattr(kind, "review", review)
    with pytest.raises(GenerationFailed):
        runnable.txt2img(wanted())


def test_not_a_number_ends_one_request(
    runnable: StableDiffusionRunnable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row is not finite: its request ends, and those that end with it succeed."""
    original, go, ended = Batch.step, threading.Event(), list[set[int]]()

    def step(batch: Batch) -> list[Row]:
        assert go.wait(300)
        done = original(batch)
        for row in batch.rows:
            if row.seed == 1:
                row.state.fill_(torch.nan)
        ended.append({row.seed for row in done})
        return done

    monkeypatch.setattr(Batch, "step", step)
    tickets = [runnable.submit(wanted(seed=seed, guidance_scale=1.0)) for seed in range(4)]
    go.set()
    outcomes = [ticket.future.exception(timeout=300) for ticket in tickets]
    assert [type(one) for one in outcomes] == [type(None), GenerationFailed, *[type(None)] * 2]
    assert "not numbers" in str(outcomes[1])
    assert any({1, 2} <= seeds for seeds in ended), "they are decoded in one call"


def test_drain_finishes_what_was_accepted_and_refuses_the_rest(start: Start) -> None:
    runnable = start("sd1")
    tickets = [runnable.submit(wanted(10)) for _ in range(5)]
    assert runnable.drain(60)
    assert all(isinstance(ticket.future.result(timeout=300), Result) for ticket in tickets)
    assert not runnable.ready
    with pytest.raises(NotReady):
        runnable.submit(wanted())


def test_a_drained_engine_sleeps(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    runnable = start("sd1")
    runnable.drain(10)
    turns: list[float] = []
    monkeypatch.setattr(engine_of(runnable)._loop, "_drop_ended", lambda: turns.append(0.0))
    time.sleep(1.2)
    assert len(turns) <= 4


def test_close_ends_what_is_left(start: Start) -> None:
    runnable = start("sd1", max_queue_s=3600)
    tickets = [runnable.submit(wanted(150)) for _ in range(40)]
    runnable.close()
    for ticket in tickets:
        with pytest.raises(NotReady):
            ticket.future.result(timeout=300)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"height": 60}, "height"),
        ({"width": 4096, "height": 4096}, "height"),
        ({"scheduler": "euler_ancestor"}, "scheduler"),
        ({"guidance_interval": (0.7, 0.2)}, "guidance_interval"),
        ({"guidance_interval": (-0.5, 0.5)}, "guidance_interval"),
        ({"guidance_interval": (0.2, 1.5)}, "guidance_interval"),
    ],
)
def test_what_cannot_be_generated_is_refused(
    runnable: StableDiffusionRunnable, options: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        runnable.submit(wanted(**options))
    assert caught.value.loc == (field,)


def test_guidance_interval_skips_unconditional_rows(
    runnable: StableDiffusionRunnable, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    original = UNetFamily.denoise

    def denoise(self: UNetFamily, sample: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(sample))
        return original(self, sample, *rest)

    untraced(monkeypatch)
    monkeypatch.setattr(UNetFamily, "denoise", denoise)
    runnable.txt2img(wanted(10, scheduler="ddim", guidance_interval=(0.2, 0.6)))
    assert rows == [1, 1, 2, 2, 2, 2, 1, 1, 1, 1]


def test_guidance_interval_is_of_all_steps_with_a_refiner(
    start: Start, tiny_model: Callable[[str], Path]
) -> None:
    model = model_of(start("sdxl", refiner=str(tiny_model("sdxl-refiner"))))
    parameters = wanted(10, guidance_interval=(0.2, 0.5))
    with torch.inference_mode():
        (row,) = Preparer(0).at_once(plan(model, Ticket(parameters), Inputs()))
    assert [stage.load for stage in row._stages] == [2.0, 2.0]
    guided = []
    while not row.denoised:
        guided.append(row.guided)
        row.advance()
    assert guided == [False] * 2 + [True] * 3 + [False] * 5
