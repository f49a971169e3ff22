"""Rows of different sizes and prompt lengths share a call; their images equal diffusers' own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runnables.accelerators.base import Accelerator
from runnables.accelerators.cpu.positions import Layout
from runnables.engine.batch import Batch
from runnables.engine.cost import CostModel
from runnables.engine.row import Row
from runnables.parameters import Inpaint, LoraUse, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs
from tests.runnables.engine import reference
from tests.runnables.engine.test_parity import BOUND, Start, TinyModel
from tests.runnables.extensions import test_lora

SIZES = [(64, 64), (96, 64), (64, 96), (96, 96), (32, 64)]
LONG_PROMPT = "a red cat beside a tree, " * 40


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many sizes and prompt lengths each batch has; a call takes as long as any other."""
    seen: list[tuple[int, int]] = []
    made = Batch.__init__

    def noting(self: Batch, rows: Sequence[Row], accelerator: Accelerator) -> None:
        made(self, rows, accelerator)
        lengths = {len(row.stage.positive.hidden_states) for row in rows}
        seen.append((len({row.size for row in rows}), len(lengths)))

    monkeypatch.setattr(Batch, "__init__", noting)
    monkeypatch.setattr(CostModel, "step", lambda self, rows, area: 1.0)
    return seen


def wanted(task: type[TextToImage] = TextToImage, **options: Any) -> list[TextToImage]:
    """A request of every size, all different in steps, sampler and guidance."""
    samplers = ("euler_a", "ddim", "dpmpp_2m", "unipc", "heun")
    made = []
    for i, ((height, width), sampler) in enumerate(zip(SIZES, samplers, strict=True)):
        given = {
            "prompt": f"a red cat {i}",
            "num_inference_steps": 5 + i,
            "scheduler": sampler,
            "guidance_scale": (7.5, 1.0, 3.0)[i % 3],
            "seed": i,
            "height": height,
            "width": width,
        }
        made.append(task(**(given | options)))
    return made


def shared(
    runnable: StableDiffusionRunnable, every: Sequence[TextToImage], given: Sequence[Inputs]
) -> list[tuple[TextToImage, np.ndarray]]:
    """The resolved requests with their images, made at the same time."""
    pairs = zip(every, given, strict=True)
    tickets = [runnable.submit(one, inputs) for one, inputs in pairs]
    results = [ticket.future.result(timeout=300) for ticket in tickets]
    return [(one.parameters, np.asarray(one.images[0].image).astype(int)) for one in results]


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_sizes_share_calls(
    kind: str,
    start: Start,
    tiny_model: TinyModel,
    photo: Image.Image,
    mask: Image.Image,
    batches: list[tuple[int, int]],
) -> None:
    pictures = [photo.resize((width, height)) for height, width in SIZES]
    masks = [mask.resize((width, height)) for height, width in SIZES]
    texts = [(one, Inputs()) for one in wanted()]
    inpaints = [
        (one, Inputs(*pair))
        for one, *pair in zip(wanted(Inpaint, strength=0.8), pictures, masks, strict=True)
    ]
    every = [*texts, *inpaints]
    runnable = start(kind, max_batch=64)
    done = shared(runnable, *zip(*every, strict=True))
    assert max(sizes for sizes, _ in batches) >= 4
    for (one, drawn), (_, inputs) in zip(done, every, strict=True):
        expected = reference.generate(tiny_model(kind), one, inputs.image, inputs.mask)
        assert drawn.shape == expected.shape
        assert np.abs(drawn - expected).max() <= BOUND, (one.task, one.height, one.width)


def test_loras_act_on_their_rows_alone(
    start: Start, tiny_model: TinyModel, tmp_path: Path, batches: list[tuple[int, int]]
) -> None:
    model = tiny_model("sd1")
    test_lora.write(tmp_path, "one", model)
    use = (LoraUse(name="one", weight=0.8),)
    every = [one.model_copy(update={"loras": use * (i % 2)}) for i, one in enumerate(wanted())]
    runnable = start("sd1", lora_dir=str(tmp_path), max_batch=64)
    done = shared(runnable, every, [Inputs()] * len(every))
    assert max(sizes for sizes, _ in batches) >= 4
    for one, drawn in done:
        assert test_lora.difference(drawn, test_lora.expected(model, tmp_path, one)) <= BOUND


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_prompt_lengths_share_calls(
    kind: str, start: Start, batches: list[tuple[int, int]]
) -> None:
    """The images are those that each request gets alone."""
    every = wanted(height=64, width=64)
    for index, (positive, negative) in {1: (LONG_PROMPT, ""), 3: ("a cat", LONG_PROMPT)}.items():
        update = {"prompt": positive, "negative_prompt": negative, "guidance_scale": 5.0}
        every[index] = every[index].model_copy(update=update)
    runnable = start(kind, max_batch=64)
    done = shared(runnable, every, [Inputs()] * len(every))
    assert max(lengths for _, lengths in batches) >= 2
    batches.clear()
    for one, drawn in done:
        alone = np.asarray(runnable.txt2img(one).images[0].image).astype(int)
        assert np.abs(drawn - alone).max() <= BOUND
    assert max(batches) == (1, 1)


@pytest.mark.parametrize(
    "apart", [{"guidance_rescale": 0.5, "guidance_scale": 6.0}, {"deep_cache_interval": 2}]
)
def test_what_looks_at_all_positions_keeps_its_size(
    apart: dict[str, Any], start: Start, tiny_model: TinyModel, batches: list[tuple[int, int]]
) -> None:
    every = wanted(**apart)
    done = shared(start("sdxl", max_batch=64), every, [Inputs()] * len(every))
    assert max(sizes for sizes, _ in batches) == 1
    for one, drawn in done:
        if not one.deep_cache_interval:
            expected = reference.generate(tiny_model("sdxl"), one)
            assert np.abs(drawn - expected).max() <= BOUND


def test_a_preview_has_the_rows_own_size(start: Start, batches: list[tuple[int, int]]) -> None:
    runnable, seen = start("sd1", max_batch=64), list[tuple[int, int]]()
    tickets = [runnable.submit(one, Inputs()) for one in wanted()]
    for ticket in tickets:
        ticket.preview_every = 1
        ticket.on_step = lambda told: seen.append(told.preview.size) if told.preview else None
    for ticket in tickets:
        ticket.future.result(timeout=300)
    assert max(sizes for sizes, _ in batches) >= 2
    ratios = {round(width / height, 2) for width, height in seen}
    assert ratios == {round(width / height, 2) for height, width in SIZES}


@pytest.mark.usefixtures("batches")
def test_calls_of_some_sizes_are_laid_out_for_those_before(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So one trace serves them all."""
    seen: set[tuple[tuple[int, int], ...]] = set()
    made = Layout.__init__

    def noting(self: Layout, rows: Any, sizes: Any, given: Any) -> None:
        made(self, rows, sizes, given)
        if len(set(rows)) > 1:
            seen.add(tuple(sizes))

    runnable, every = start("sd1"), wanted(num_inference_steps=40)
    shared(runnable, every[1:4], [Inputs()] * 3)
    monkeypatch.setattr(Layout, "__init__", noting)
    for few in (every[1::2], every[2:4]):
        shared(runnable, few, [Inputs()] * 2)
    assert seen == {((12, 12), (12, 8), (8, 12))}
