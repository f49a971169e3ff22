"""FLUX.2 klein: images equal diffusers' own, whatever shares the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from runnables.errors import InvalidInput
from runnables.parameters import ImageToImage, Inpaint, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs, Progress
from tests.insides import base_of
from tests.runnables.engine.test_parity import check, requests
from tests.runnables.families.test_flux import MATCHING, MULTISTEP

Start = Callable[..., StableDiffusionRunnable]
LONG_PROMPT = "a long prompt with many more words than the other one, so that both share calls"


@pytest.fixture(scope="module", params=["flux-2-klein", "flux-2-klein-base"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(kind: str, tiny_model: Callable[[str], Path]) -> Path:
    path = tiny_model(kind)
    (path / "profile.json").write_text('{"height": 64, "width": 64}')
    return path


@pytest.fixture(scope="module")
def runnable(start: Start, kind: str, folder: Path) -> StableDiffusionRunnable:
    return start(kind)


def wanted(task: type[TextToImage] = TextToImage, **options: Any) -> TextToImage:
    given = {"prompt": "a cat", "num_inference_steps": 4, "seed": 3, "height": 64, "width": 64}
    return task(**(given | options))


def test_every_sampler_in_one_mixed_batch(
    runnable: StableDiffusionRunnable, folder: Path, photo: Image.Image, mask: Image.Image
) -> None:
    every = [
        one.model_copy(update={"height": 64, "width": 64})
        for one in requests(MATCHING + MULTISTEP, TextToImage)
    ]
    every += [wanted(prompt=LONG_PROMPT, seed=seed, guidance_scale=seed) for seed in (1, 4)]
    every += [wanted(height=96), wanted(height=64, width=128, num_inference_steps=9)]
    check(folder, runnable, every, photo, mask)


def test_a_request_alone(
    runnable: StableDiffusionRunnable, folder: Path, photo: Image.Image, mask: Image.Image
) -> None:
    check(folder, runnable, [wanted(guidance_scale=3.0)], photo, mask)


def test_other_tasks_and_features_are_refused_by_name(
    runnable: StableDiffusionRunnable, photo: Image.Image, mask: Image.Image
) -> None:
    for task, name in ((ImageToImage, "img2img"), (Inpaint, "inpaint")):
        with pytest.raises(InvalidInput, match=f"text alone: {name} is not offered"):
            runnable.submit(wanted(task), Inputs(photo, mask if task is Inpaint else None))
    with pytest.raises(InvalidInput, match="flux-2-klein models do not take hires"):
        runnable.submit(wanted(hires={"scale": 2}))


def test_a_prompt_that_is_too_long_is_refused_where_it_is_read(
    runnable: StableDiffusionRunnable, kind: str
) -> None:
    long = "a " * 400
    read = ["prompt", "negative_prompt"] if kind == "flux-2-klein-base" else ["prompt"]
    for field in read:
        with pytest.raises(InvalidInput, match=f"^{field} is longer than the 512 tokens"):
            runnable.submit(wanted(**{field: long}))
    if kind == "flux-2-klein":
        runnable.txt2img(wanted(negative_prompt=long))


def test_previews(runnable: StableDiffusionRunnable) -> None:
    reported: list[Progress] = []
    runnable.submit(wanted(), on_step=reported.append, preview_every=2).future.result(timeout=60)
    assert [one.preview.size for one in reported if one.preview] == [(8, 8)]
    latents = torch.randn(1, 8, 8, 8)
    family = base_of(runnable)
    torch.testing.assert_close(family._unscale(family._scale(latents)), latents)
