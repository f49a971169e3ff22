"""Images equal diffusers' own, whoever shares the batch: at most 2 of 255 in any pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runnables.parameters import ImageToImage, Inpaint, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.samplers.names import samplers
from runnables.ticket import Inputs
from tests.long import LONG
from tests.runnables.engine import reference

BOUND = 2
Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
PLAIN = ["default", *(name for name, sampler in samplers().items() if not sampler.spacing)]
SPACED = [name for name, sampler in samplers().items() if sampler.spacing]


def requests(names: list[str], task: type[TextToImage], seed: int = 0) -> list[TextToImage]:
    """Return a request for each sampler, all different in prompt, steps, guidance, strength."""
    made = []
    for i, name in enumerate(names):
        options = {
            "prompt": f"a red cat {i}",
            "negative_prompt": "a dog" if i % 2 else "",
            "guidance_scale": (7.5, 1.0, 3.0)[i % 3],
            "num_inference_steps": 4 + i % 4,
            "scheduler": name,
            "seed": seed + i,
        }
        if task is not TextToImage:
            options["strength"] = (0.6, 0.9)[i % 2]
        if task is not ImageToImage:
            options |= {"height": 64, "width": 64}
        made.append(task(**options))  # type: ignore[arg-type]
    return made


def inputs(
    task: type[TextToImage], photo: Image.Image, mask: Image.Image
) -> tuple[Image.Image | None, Image.Image | None]:
    """Image and mask as far as the task takes them."""
    return (
        photo if issubclass(task, ImageToImage) else None,
        mask if task is Inpaint else None,
    )


def check(
    folder: Path,
    runnable: StableDiffusionRunnable,
    wanted: list[TextToImage],
    photo: Image.Image,
    mask: Image.Image,
) -> None:
    """Draw all at once, and compare each with diffusers."""
    tickets = [runnable.submit(one, Inputs(*inputs(type(one), photo, mask))) for one in wanted]
    for one, ticket in zip(wanted, tickets, strict=True):
        result = ticket.future.result(timeout=300)
        expected = reference.generate(folder, result.parameters, *inputs(type(one), photo, mask))
        drawn = np.asarray(result.images[0].image).astype(int)
        difference = np.abs(drawn - expected).max()
        assert difference <= BOUND, f"{one.task} {one.scheduler}: {difference} of 255"


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_every_sampler_and_task_in_one_mixed_batch(
    kind: str, start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    """Every sampler does every task of one model, and one task of each other model (LONG: all)."""
    every = [requests(PLAIN, task) for task in (TextToImage, ImageToImage, Inpaint)]
    wanted = [one for each in every for one in each]
    if kind != "sd1" and not LONG:
        wanted = [every[(i + i // 3) % 3][i] for i in range(len(PLAIN))]
    check(tiny_model(kind), start(kind), wanted, photo, mask)


def test_every_spacing(
    start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    check(tiny_model("sd1"), start("sd1"), requests(SPACED, TextToImage), photo, mask)


@pytest.mark.parametrize("kind", ["sd1-inpaint", "sdxl-inpaint"])
def test_nine_channel_inpainting(
    kind: str, start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    wanted = requests(["default", "euler_a", "dpmpp_2m", "unipc"], Inpaint)
    wanted.append(wanted[0].model_copy(update={"strength": 1.0}))
    check(tiny_model(kind), start(kind), wanted, photo, mask)


def test_inpainting_at_full_strength_starts_from_noise(
    start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    wanted = [
        one.model_copy(update={"strength": 1.0})
        for one in requests(["ddim", "lms", "unipc_karras", "dpmpp_2m_exponential"], Inpaint)
    ]
    check(tiny_model("sd1"), start("sd1"), wanted, photo, mask)


def test_many_karras_steps_share_timesteps(
    start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    for kind in ("sd1", "sdxl") if LONG else ("sd1",):
        wanted = TextToImage(
            prompt="x", num_inference_steps=150, scheduler="dpmpp_2m_karras", seed=2
        )
        check(tiny_model(kind), start(kind), [wanted], photo, mask)


def test_distilled_model_takes_guidance_as_an_embedding(
    start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    wanted = [
        TextToImage(prompt="a cat", num_inference_steps=steps, guidance_scale=8.0, seed=steps)
        for steps in (1, 2, 4)
    ]
    check(tiny_model("lcm"), start("lcm"), wanted, photo, mask)


def test_guidance_rescale(
    start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    wanted = [
        TextToImage(prompt="x", guidance_scale=9, guidance_rescale=r, num_inference_steps=5, seed=3)
        for r in (0.0, 0.3, 1.0)
    ]
    check(tiny_model("sdxl"), start("sdxl"), wanted, photo, mask)


def test_other_sizes(
    start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    wanted = [
        TextToImage(prompt="x", height=h, width=w, num_inference_steps=4, seed=1)
        for h, w in ((64, 96), (48, 64), (96, 96), (64, 64))
    ]
    check(tiny_model("sd1"), start("sd1"), wanted, photo, mask)


def test_refiner_as_second_stage(start: Start, tiny_model: TinyModel) -> None:
    import diffusers
    import torch

    base, refiner = tiny_model("sdxl"), tiny_model("sdxl-refiner")
    wanted = TextToImage(prompt="a cat", num_inference_steps=10, guidance_scale=5.0, seed=4)
    drawn = start("sdxl", refiner=str(refiner)).txt2img(wanted).images[0].image
    generator = torch.Generator().manual_seed(4)
    options = {
        "prompt": wanted.prompt,
        "num_inference_steps": 10,
        "guidance_scale": 5.0,
        "generator": generator,
    }
    first = diffusers.StableDiffusionXLPipeline.from_pretrained(base)
    second = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(refiner)
    latents = first(**options, denoising_end=0.8, output_type="latent").images
    pixels = second(**options, image=latents, denoising_start=0.8, output_type="np").images[0]
    expected = (pixels * 255).round().astype(int)
    assert np.abs(np.asarray(drawn).astype(int) - expected).max() <= BOUND


def test_images_of_one_request_are_those_of_consecutive_seeds(start: Start) -> None:
    runnable = start("sd1")
    several = TextToImage(prompt="x", num_inference_steps=4, seed=10, num_images_per_prompt=3)
    drawn = runnable.txt2img(several).images
    assert [one.seed for one in drawn] == [10, 11, 12]
    for one in drawn:
        single = several.model_copy(update={"seed": one.seed, "num_images_per_prompt": 1})
        alone = runnable.txt2img(single).images[0].image
        difference = np.abs(np.asarray(alone).astype(int) - np.asarray(one.image).astype(int))
        assert difference.max() <= BOUND
