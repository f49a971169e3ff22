"""Nothing is started that cannot finish."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from runnables import assembly
from runnables.accelerators.cpu.device import Cpu
from runnables.engine import decode
from runnables.engine.batch import Batch
from runnables.engine.memory import MemoryModel
from runnables.engine.row import Row
from runnables.engine.steps import Steps
from runnables.errors import PayloadTooLarge
from runnables.families import latents
from runnables.parameters import Hires, Inpaint, TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.insides import model_of

Start = Callable[..., StableDiffusionRunnable]


def test_rows_and_images_that_fit() -> None:
    memory = MemoryModel(budget=1000, row_rate=2, decode_rate=5)
    assert memory.rows(100) == 5
    assert memory.images(100) == 2
    memory.check(100, 2)
    memory.check(200, 2)
    with pytest.raises(PayloadTooLarge, match="80%"):  # the decoder holds no image of this size
        memory.check(250, 1)
    memory.decode_rate = 0.0
    with pytest.raises(PayloadTooLarge, match="83%"):  # nor the UNet two rows of this one
        memory.check(300, 2)
    memory.check(300, 1)


def test_what_adapters_have_taken_is_left_out() -> None:
    memory = MemoryModel(budget=1000, row_rate=2, decode_rate=5, adapters=600)
    assert (memory.rows(100), memory.images(10)) == (2, 8)
    memory.adapters = 2000
    with pytest.raises(PayloadTooLarge, match="0%"):
        memory.check(1, 1)


def test_where_nothing_is_known_everything_fits() -> None:
    memory = MemoryModel()
    memory.check(10**9, 2)
    assert memory.rows(10**9) == memory.images(10**9) == math.inf


def test_the_engine_keeps_to_it(start: Start) -> None:
    runnable = start("sd1", max_pixels=10**7)
    memory = model_of(runnable).memory
    memory.budget, memory.row_rate, memory.decode_rate = 1000.0, 4.0, 1.0
    request = TextToImage(prompt="x", num_inference_steps=2, num_images_per_prompt=4, seed=1)
    assert len(runnable.txt2img(request).images) == 4
    assert memory.rows(64) < 4  # of 8 denoiser rows: generated in several calls
    large = request.model_copy(update={"height": 256, "width": 256})
    with pytest.raises(PayloadTooLarge, match="smaller") as refused:
        runnable.txt2img(large)
    assert refused.value.loc == ("height",)
    memory.budget = 1.5 * memory.row_rate * 32 * 32  # one row of it, and not two
    with pytest.raises(PayloadTooLarge, match="smaller"):
        runnable.txt2img(large)
    runnable.txt2img(large.model_copy(update={"guidance_scale": 1.0}))


def test_a_call_holds_no_more_rows_than_fit(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    runnable, calls, step = start("sd1"), list[int](), Batch.step

    def counted(batch: Batch) -> Any:
        calls.append(len(batch.rows))
        return step(batch)

    monkeypatch.setattr(Batch, "step", counted)
    memory = model_of(runnable).memory
    memory.budget, memory.row_rate, memory.decode_rate = 2.5 * 4.0 * 64, 4.0, 1.0
    request = TextToImage(prompt="x", num_inference_steps=2, seed=1, guidance_scale=1.0)
    runnable.txt2img(request.model_copy(update={"num_images_per_prompt": 4}))
    assert max(calls) == 2


def test_warm_up_measures_the_device(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four guided images of 8x8 latents are eight denoiser rows; then one image is decoded."""
    assert model_of(start("sd1")).memory.budget < psutil.virtual_memory().total
    monkeypatch.setattr(assembly, "WARM_UP_S", math.inf)  # all of it on a busy machine, too
    monkeypatch.setattr(Cpu, "free_bytes", lambda device: 1e9)
    monkeypatch.setattr(Cpu, "measure", lambda device, call: (call(), 1024.0))
    memory = model_of(start("sd1")).memory
    assert (memory.row_rate, memory.decode_rate) == (1024 / (8 * 64), 1024 / 64)
    assert memory.budget == assembly.SPARE * 1e9


def test_a_replayed_graph_does_not_hide_what_its_call_takes(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph's memory is taken when it is captured, at the first call of a size."""
    held = iter([512.0, 0.0, 1024.0, 0.0, 2048.0])  # the last is a decode
    monkeypatch.setattr(assembly, "WARM_UP_S", math.inf)
    monkeypatch.setattr(Cpu, "buckets", (1, 2, 4, 8))
    monkeypatch.setattr(Cpu, "measure", lambda device, call: (call(), next(held)))
    memory = model_of(start("sd1")).memory
    assert (memory.row_rate, memory.decode_rate) == (1024 / (8 * 64), 2048 / 64)


class Failing:
    """A call that fails for several rows, and holds a tensor until its frame is gone."""

    def __init__(self) -> None:
        self.held: weakref.ref[Tensor] | None = None

    def __call__(self, rows: list[int]) -> list[str]:
        if len(rows) == 1:
            assert self.held is not None and self.held() is None, "its memory is not free"
            return ["pixels"]
        activations = torch.zeros(3)
        self.held = weakref.ref(activations)
        raise torch.OutOfMemoryError("full")


def test_decodes_are_tried_again_when_the_failed_call_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode, "decode_call", Failing())
    accelerator: Any = SimpleNamespace(free_memory=lambda: None)
    rows: Any = [1, 2]
    assert list(decode._decode_chunk(rows, accelerator)) == [(1, "pixels"), (2, "pixels")]


def test_steps_are_tried_again_when_the_failed_call_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps, call, rows = object.__new__(Steps), Failing(), [1, 2]
    steps.accelerator = cast(
        Any, SimpleNamespace(free_memory=lambda: None, is_out_of_memory=lambda error: True)
    )
    steps.headroom = cast(Any, SimpleNamespace(exhausted=lambda: None))
    steps.active = cast(Any, SimpleNamespace(rows=rows))
    monkeypatch.setattr(steps, "step", call)
    try:
        call(rows)
    except torch.OutOfMemoryError as error:
        steps._recover(error, cast(Any, rows))


def test_noise_is_drawn_ahead_for_some_steps(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """150 steps of ten large images would take gigabytes."""
    runnable, kept = start("sd1"), list[int]()
    request = TextToImage(
        prompt="x", num_inference_steps=8, seed=1, scheduler="euler_a", hires=Hires(strength=0.9)
    )
    expected = np.asarray(runnable.txt2img(request).images[0].image)
    monkeypatch.setattr(latents, "AHEAD_BYTES", 3 * 4 * 64 * 4, raising=False)
    step = Batch.step

    def counted(batch: Batch) -> list[Row]:
        done = step(batch)
        kept.append(max(len(row.noise) for row in batch.rows))
        return done

    monkeypatch.setattr(Batch, "step", counted)
    found = np.asarray(runnable.txt2img(request).images[0].image)
    assert max(kept) == 3
    assert (found == expected).all()


def test_a_step_that_fails_at_its_end_is_taken_once(
    start: Start, photo: Image.Image, mask: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable, calls = start("sd1"), list[int]()
    request = Inpaint(
        prompt="x", num_inference_steps=6, seed=1, num_images_per_prompt=2, scheduler="dpmpp_2m"
    )

    def pixels() -> Any:
        images = runnable.inpaint(request, photo, mask).images
        return np.stack([np.asarray(one.image).astype(int) for one in images])

    expected = pixels()
    blend = Batch._keep_unmasked

    def failing(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("full")
        return blend(*given)

    monkeypatch.setattr(Batch, "_keep_unmasked", failing)
    found = pixels()
    assert len(calls) > 3
    assert np.abs(found - expected).max() <= 2
