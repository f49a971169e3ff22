"""Z-Image Turbo: images equal diffusers' own, whatever shares the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from runnables.errors import InvalidInput
from runnables.parameters import ImageToImage, Inpaint, TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.runnables.engine.test_parity import check

Start = Callable[..., StableDiffusionRunnable]
TASKS: tuple[type[TextToImage], ...] = (TextToImage, ImageToImage, Inpaint)
PROMPTS = (
    "a cat",
    "a long prompt with many more words than the other one, so that both share calls",
)


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[[str], Path]) -> Path:
    path = tiny_model("z-image")
    (path / "profile.json").write_text('{"height": 64, "width": 64}')
    return path


def wanted(task: type[TextToImage] = TextToImage, **options: Any) -> TextToImage:
    given = {"prompt": PROMPTS[0], "num_inference_steps": 4, "seed": 3, "guidance_scale": 0.0}
    return task(**(given | {"height": 64, "width": 64} | options))


def test_tasks_samplers_and_prompts_in_one_mixed_batch(
    start: Start, folder: Path, photo: Image.Image, mask: Image.Image
) -> None:
    every = [
        wanted(task, prompt=prompt, seed=seed, scheduler=scheduler)
        for task in TASKS
        for seed, (prompt, scheduler) in enumerate(zip(PROMPTS, ("default", "euler"), strict=True))
    ]
    every += [wanted(num_inference_steps=9), wanted(height=96), wanted(num_images_per_prompt=1)]
    check(folder, start("z-image"), every, photo, mask)


def test_a_prompt_that_is_too_long_is_refused(start: Start, folder: Path) -> None:
    with pytest.raises(InvalidInput, match="longer than the 512 tokens") as refused:
        start("z-image").submit(wanted(prompt="a " * 400))
    assert refused.value.loc == ("prompt",)


def test_bf16_equals_diffusers_but_for_its_rounding(start: Start, folder: Path) -> None:
    """Noise and timesteps stay in fp32 there: in bf16 both would be others."""
    diffuser = diffusers.ZImagePipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    expected = diffuser(
        PROMPTS[0],
        height=64,
        width=64,
        num_inference_steps=4,
        guidance_scale=0.0,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images[0]
    ticket = start("z-image", precision="bf16").submit(wanted())
    generated = np.asarray(ticket.future.result(300).images[0].image).astype(int)
    difference = np.abs(generated - (expected * 255).round())
    assert difference.max() <= 4 and difference.mean() < 0.5  # 21 with both in bf16
