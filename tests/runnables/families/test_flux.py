"""FLUX.1: images equal diffusers' own, whatever shares the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runnables.errors import InvalidInput
from runnables.parameters import ImageToImage, Inpaint, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.samplers.names import samplers
from tests.insides import base_of, sharing
from tests.runnables.engine import reference
from tests.runnables.engine.test_parity import BOUND, check, requests

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
TASKS: tuple[type[TextToImage], ...] = (TextToImage, ImageToImage, Inpaint)
MATCHING = ["default", "euler", "euler_karras", "euler_exponential"]
#: diffusers' pipelines run these from text alone, and only where the shift depends on the size
MULTISTEP = [
    name
    for name, sampler in samplers().items()
    if sampler.fits("flow") and not sampler.stochastic and name not in (*MATCHING, "heun")
]


def wanted(**options: Any) -> TextToImage:
    given = {"prompt": "a cat", "num_inference_steps": 4, "seed": 3, "height": 64, "width": 64}
    return TextToImage(**(given | options))


@pytest.mark.parametrize("kind", ["flux-dev", "flux-schnell"])
def test_every_sampler_and_task_in_one_mixed_batch(
    kind: str, start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    names = dict.fromkeys(TASKS, MATCHING)
    if kind == "flux-dev":
        names[TextToImage] = MATCHING + MULTISTEP
    every = [
        one.model_copy(update={"height": 64, "width": 64})
        for task in TASKS
        for one in requests(names[task], task)
    ]
    sizes = [wanted(height=h, width=w, seed=h) for h, w in ((96, 64), (128, 128))]
    runnable = start(kind, model=str(_small(tiny_model(kind))))
    check(tiny_model(kind), runnable, [*every, *sizes], photo, mask)


def test_a_request_alone_equals_diffusers_for_every_task(
    start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    runnable = start("flux-dev", model=str(_small(tiny_model("flux-dev"))))
    for task in TASKS:
        one, *_ = requests(["euler"], task, seed=11)
        sized = one.model_copy(update={"height": 64, "width": 64})
        check(tiny_model("flux-dev"), runnable, [sized], photo, mask)


def _small(folder: Path) -> Path:
    """The warm-up draws at the native size, which is 1024 unless a profile says another."""
    (folder / "profile.json").write_text('{"height": 64, "width": 64}')
    return folder


def test_mixed_guidance_scales_share_calls(
    start: Start, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = start("flux-dev", model=str(_small(tiny_model("flux-dev"))))
    every = [wanted(guidance_scale=g) for g in (1.0, 3.5, 8.0)]
    with sharing(monkeypatch, type(base_of(runnable))) as rows:
        tickets = [runnable.submit(one) for one in every]
    images = []
    for one, ticket in zip(every, tickets, strict=True):
        result = ticket.future.result(timeout=300)
        pixels = reference.generate(tiny_model("flux-dev"), result.parameters)
        images.append(np.asarray(result.images[0].image).astype(int))
        assert np.abs(images[-1] - pixels).max() <= BOUND, one.guidance_scale
    assert max(rows) == 3
    assert (images[0] != images[2]).any()


def test_what_it_does_not_take_is_refused(start: Start, tiny_model: TinyModel) -> None:
    runnable = start("flux-dev", model=str(_small(tiny_model("flux-dev"))))
    for options, field in (({"clip_skip": 1}, "clip_skip"), ({"scheduler": "ddim"}, "scheduler")):
        with pytest.raises(InvalidInput) as caught:
            runnable.submit(wanted(**options))
        assert caught.value.loc == (field,)
    with pytest.raises(InvalidInput, match="longer than the 512 tokens"):
        runnable.submit(wanted(prompt="a red cat " * 60))
