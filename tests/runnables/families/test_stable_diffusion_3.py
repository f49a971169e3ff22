"""Stable Diffusion 3 and 3.5 equal diffusers' images, whatever shares the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runnables.errors import InvalidInput
from runnables.parameters import Hires, ImageToImage, Inpaint, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.samplers.names import samplers
from tests.runnables.engine import reference
from tests.runnables.engine.test_parity import BOUND, check, requests

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
TASKS: tuple[type[TextToImage], ...] = (TextToImage, ImageToImage, Inpaint)
FLOW = ["default", *(name for name, sampler in samplers().items() if sampler.fits("flow"))]


def wanted(**options: Any) -> TextToImage:
    arguments = {"prompt": "a cat", "num_inference_steps": 4, "guidance_scale": 5.0, "seed": 3}
    return TextToImage(**(arguments | options))


def difference(image: Any, other: Any) -> int:
    return int(np.abs(np.asarray(image).astype(int) - np.asarray(other).astype(int)).max())


@pytest.mark.parametrize("kind", ["sd3", "sd3-no-t5"])
def test_every_sampler_and_task_in_one_mixed_batch(
    kind: str, start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    every = [one for task in TASKS for one in requests(FLOW, task)]
    check(tiny_model(kind), start(kind), every, photo, mask)


def test_a_shift_by_size_in_mixed_batches(
    start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    every = [one for task in TASKS for one in requests(["default", "dpmpp_2m"], task)]
    sizes = [wanted(height=h, width=w, seed=h) for h, w in ((64, 64), (96, 64), (128, 128))]
    check(tiny_model("sd3.5"), start("sd3.5"), [*every, *sizes], photo, mask)


def test_inpainting_with_further_channels(
    start: Start, tiny_model: TinyModel, photo: Image.Image, mask: Image.Image
) -> None:
    every = requests(["default", "unipc", "heun"], Inpaint)
    every.append(every[0].model_copy(update={"strength": 1.0}))
    check(tiny_model("sd3-inpaint"), start("sd3-inpaint"), every, photo, mask)


def test_clip_skip_and_second_pass(start: Start, tiny_model: TinyModel) -> None:
    runnable, folder = start("sd3"), tiny_model("sd3")
    hires = Hires(scale=2.0, strength=0.6, upscaler="lanczos")
    plain = wanted(clip_skip=1, negative_prompt="a dog")
    for one in (plain, wanted(hires=hires, height=64, width=64)):
        result = runnable.txt2img(one)
        expected = reference.generate(folder, result.parameters)
        assert difference(result.images[0].image, expected) <= BOUND, one


def test_t5_is_left_out_by_a_setting(start: Start, tiny_model: TinyModel) -> None:
    """The weights but for T5's are the same, so the image is that of the model without it."""
    without = start("sd3", t5=False).txt2img(wanted()).images[0].image
    result = start("sd3-no-t5").txt2img(wanted())
    assert difference(without, result.images[0].image) <= BOUND
    assert difference(without, start("sd3").txt2img(wanted()).images[0].image) > BOUND


def test_a_sampler_that_does_not_fit_is_refused_by_name(start: Start) -> None:
    with pytest.raises(InvalidInput, match="euler_a does not fit a flow matching model") as caught:
        start("sd3").submit(wanted(scheduler="euler_a"))
    assert caught.value.loc == ("scheduler",)
    with pytest.raises(InvalidInput, match="does not fit a model of epsilon"):
        start("sd1").submit(wanted(scheduler="FlowMatchEulerDiscreteScheduler"))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"deep_cache_interval": 2}, "deep_cache_interval"),
        ({"prompt": "a (cat)1.5", "prompt_syntax": "compel"}, "prompt_syntax"),
        ({"embeddings": ["toy"]}, "embeddings"),
    ],
)
def test_a_feature_of_other_families_is_refused(
    start: Start, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput, match=f"stable-diffusion-3 models do not take {field}") as no:
        start("sd3").submit(wanted(**options))
    assert no.value.loc == (field,)


def test_what_no_encoder_reads_is_refused(start: Start) -> None:
    long = "a red cat " * 20  # characters are tokens here: 160 of CLIP's, 200 of T5's
    assert start("sd3").txt2img(wanted(prompt=long)).images
    for kind, prompt, room in (("sd3", long * 2, 256), ("sd3-no-t5", long, 77)):
        with pytest.raises(InvalidInput, match=f"longer than the {room} tokens") as caught:
            start(kind).submit(wanted(negative_prompt=prompt))
        assert caught.value.loc == ("negative_prompt",)


@pytest.mark.parametrize(("side", "why"), [(72, "nearest is 64"), (272, "no side over 256")])
def test_sizes_are_those_of_the_transformer(start: Start, side: int, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        start("sd3").submit(wanted(height=side))
    assert caught.value.loc == ("height",)


def test_models_say_what_they_predict(start: Start) -> None:
    assert start("sd3").describe()["prediction"] == "flow"
    assert start("sd2").describe()["prediction"] == "v_prediction"


def test_previews_come_nearer_to_the_image(start: Start) -> None:
    shown: list[Image.Image] = []
    ticket = start("sd3").submit(
        wanted(num_inference_steps=12),
        on_step=lambda progress: progress.preview and shown.append(progress.preview),
        preview_every=5,
    )
    final = ticket.future.result(timeout=300).images[0].image.resize((8, 8), Image.Resampling.BOX)
    first, last = (
        np.abs(np.asarray(one, float) - np.asarray(final, float)).mean() for one in shown
    )
    assert last < first
