"""The second pass: equal to diffusers' two pipelines in a row, counted, and refused in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from runnables.checkpoints.checkpoint import Compiled
from runnables.errors import Cancelled, InvalidInput, PayloadTooLarge
from runnables.families.unet import UNetFamily
from runnables.parameters import Hires, ImageToImage, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs, Load, Progress
from tests.insides import base_of, model_of, untraced
from tests.runnables.engine import reference
from tests.runnables.engine.test_parity import BOUND, Start, TinyModel


def wanted(
    steps: int = 4, hires: dict[str, object] | None = None, **options: object
) -> TextToImage:
    given = {"prompt": "a cat", "num_inference_steps": steps, "seed": 1, **options}
    return TextToImage(**given, hires=Hires(**(hires or {})))  # type: ignore[arg-type]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


SMALL = {"height": 64, "width": 64}
REQUESTS = [
    wanted(5, scheduler="euler_a", seed=3),
    wanted(6, {"scale": 1.5, "strength": 0.5}, scheduler="dpmpp_2m", negative_prompt="dog"),
    wanted(4, {"num_inference_steps": 7, "strength": 1.0}, scheduler="ddim", guidance_scale=1.0),
    wanted(4, {"scale": 1.3}, height=64, width=96, scheduler="unipc", seed=9),
    wanted(4, {"strength": 0.9}, scheduler="heun"),
]


#: of the samplers that diffusers' pipelines for flow matching run from a picture, too
FLOW = [
    wanted(5, scheduler="euler", seed=3, **SMALL),
    wanted(6, {"scale": 1.5, "strength": 0.5}, scheduler="euler_karras", **SMALL),
    wanted(4, {"num_inference_steps": 7, "strength": 1.0}, **SMALL),
    wanted(4, {"scale": 1.3}, height=64, width=96, seed=9),
    wanted(4, {"upscaler": "lanczos"}, scheduler="euler", **SMALL),
]


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "sd3", "flux-dev", "z-image"])
def test_equals_diffusers_alone_and_mixed(
    kind: str, start: Start, tiny_model: TinyModel, photo: Image.Image
) -> None:
    unet, folder = kind.startswith(("sd1", "sd2", "sdxl")), tiny_model(kind)
    requests, size = (REQUESTS, {}) if unet else (FLOW, SMALL)
    if not unet:
        (folder / "profile.json").write_text('{"height": 64, "width": 64}')  # the warm-up's size
    runnable = start(kind)
    others = [one.model_copy(update={"hires": None}) for one in requests]
    redrawn = ImageToImage(prompt="a dog", seed=2, num_inference_steps=6, hires=Hires(), **size)
    alone = runnable.txt2img(requests[0])
    tickets = [runnable.submit(one) for one in [*requests, *others]]
    tickets.append(runnable.submit(redrawn, Inputs(photo)))
    results = [alone, *(ticket.future.result(timeout=300) for ticket in tickets)]
    for result in results:
        asked = result.parameters
        assert isinstance(asked, TextToImage)
        given = photo if isinstance(asked, ImageToImage) else None
        expected = reference.generate(folder, asked, given)
        difference = np.abs(pixels(result.images[0].image) - expected).max()
        assert difference <= BOUND, f"{asked.scheduler} {asked.hires}: {difference} of 255"


def test_refiner_ends_the_first_pass(start: Start, tiny_model: TinyModel) -> None:
    """Base, refiner, enlarged, base: the second pass is image to image, which has no refiner."""
    asked = wanted(10, {"strength": 0.5}, guidance_scale=5.0, scheduler="euler")
    drawn = start("sdxl", refiner=str(tiny_model("sdxl-refiner"))).txt2img(asked)
    unrefined = start("sdxl").txt2img(asked)
    assert drawn.images[0].image.size == (128, 128)
    assert (pixels(drawn.images[0].image) != pixels(unrefined.images[0].image)).any()
    assert drawn.cost_units == pytest.approx(unrefined.cost_units)


def test_second_passes_share_calls_with_whoever_draws_that_size(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    original = UNetFamily.denoise

    def denoise(self: UNetFamily, sample: torch.Tensor, *rest: Any) -> torch.Tensor:
        shapes.append((len(sample), *sample.shape[2:]))
        return original(self, sample, *rest)

    runnable = start("sd1")
    untraced(monkeypatch)
    monkeypatch.setattr(UNetFamily, "denoise", denoise)
    large = TextToImage(prompt="x", height=128, width=128, num_inference_steps=60, seed=0)
    tickets = [
        runnable.submit(one) for one in (large, wanted(2, {"num_inference_steps": 20}, seed=4))
    ]
    for ticket in tickets:
        ticket.future.result(timeout=300)
    assert (4, 16, 16) in shapes


def test_steps_cost_and_position_count_the_second_pass(start: Start) -> None:
    runnable = start("sd1")
    seen: list[Progress] = []
    asked = wanted(5, {"strength": 0.5, "num_inference_steps": 8}, scheduler="ddim")
    result = runnable.submit(asked, on_step=seen.append).future.result(timeout=300)
    assert [progress.step for progress in seen] == list(range(1, 10))
    assert {progress.steps for progress in seen} == {9}
    etas = [progress.eta_s or 0.0 for progress in seen]
    assert min(etas[4], etas[-1]) > 0  # in the end it is decoded, in seconds that are learnt
    positions = 2 * (5 * 8 * 8 + 4 * 16 * 16)  # guided: two rows
    assert result.cost_units == pytest.approx(positions / 64**2)
    plan, plain = runnable.plan(asked), runnable.plan(asked.model_copy(update={"hires": None}))
    assert plan.steps == 9 and plan.seconds > 1.5 * plain.seconds  # 9 of 5 steps, 4 of them larger
    resolved = result.parameters
    assert isinstance(resolved, TextToImage) and (resolved.height, resolved.width) == (64, 64)


def test_left_out_steps_are_those_of_the_first_pass(start: Start) -> None:
    hires = start("sd1").txt2img(wanted(3)).parameters.model_dump()["hires"]
    assert hires == {"scale": 2.0, "strength": 0.7, "num_inference_steps": 3, "upscaler": "latent"}


def test_previews_and_accelerations_go_on_in_both_passes(start: Start) -> None:
    seen: list[Progress] = []
    asked = wanted(
        6, {"strength": 1.0}, deep_cache_interval=2, guidance_interval=(0.0, 0.5), scheduler="ddim"
    )
    ticket = start("sd1").submit(asked, on_step=seen.append, preview_every=1)
    assert ticket.future.result(timeout=300).images[0].image.size == (128, 128)
    sizes = [progress.preview and progress.preview.size for progress in seen]
    assert sizes == [(8, 8)] * 5 + [None] + [(16, 16)] * 5 + [None]


def test_every_image_of_a_request_gets_its_own_second_pass(start: Start) -> None:
    runnable = start("sd1")
    several = runnable.txt2img(wanted(3, num_images_per_prompt=3, seed=7))
    for drawn in several.images:
        alone = runnable.txt2img(wanted(3, seed=drawn.seed)).images[0]
        assert np.abs(pixels(alone.image) - pixels(drawn.image)).max() <= BOUND


def test_cancelled_in_the_second_pass(start: Start) -> None:
    runnable = start("sd1")
    asked = wanted(2, {"num_inference_steps": 150})
    ticket = runnable.submit(
        asked, on_step=lambda progress: ticket.cancel() if progress.step == 5 else None
    )
    with pytest.raises(Cancelled):
        ticket.future.result(timeout=300)
    assert runnable.load() == Load()


@pytest.mark.parametrize(
    ("options", "error", "loc"),
    [
        ({"scale": 4.0, "size": 1088}, InvalidInput, ("hires", "scale")),
        ({"scale": 3.0, "size": 704}, PayloadTooLarge, ("hires", "scale")),
        ({"strength": 0.1}, InvalidInput, ("hires", "strength")),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    start: Start, options: dict[str, object], error: type[InvalidInput], loc: tuple[str, ...]
) -> None:
    side = options.pop("size", 64)
    with pytest.raises(error) as caught:
        start("sd1").submit(wanted(4, options, height=side, width=side))
    assert type(caught.value) is error
    assert caught.value.loc == loc


def test_compiled_models_have_none(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    runnable = start("sd1")
    base = base_of(runnable)
    checkpoint = replace(base.checkpoint, compiled=Compiled(((64, 64),), 4))
    compiled = type(base)(checkpoint, base.device, base.dtype)
    monkeypatch.setattr(base, "traits", compiled.traits)
    with pytest.raises(InvalidInput, match="not compiled") as caught:
        runnable.submit(wanted(4))
    assert caught.value.loc == ("hires",)


def test_memory_is_counted_at_the_larger_size(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = start("sd1")
    memory = model_of(runnable).memory
    monkeypatch.setattr(memory, "row_rate", 1.0)
    monkeypatch.setattr(memory, "decode_rate", 1.0)
    monkeypatch.setattr(memory, "budget", 2.0 * 8 * 8)  # a guided 64x64 image, and no more
    with pytest.raises(PayloadTooLarge) as caught:
        runnable.submit(wanted(4))
    assert caught.value.loc == ("hires", "scale")


def test_a_failing_second_pass_ends_alone(
    start: Callable[..., StableDiffusionRunnable], monkeypatch: pytest.MonkeyPatch
) -> None:
    from runnables.engine.hires import SecondPass

    original = SecondPass.from_latents

    def fail(self: SecondPass, *given: object) -> torch.Tensor:
        if self.size == (96, 96):
            raise RuntimeError("broken")
        return original(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(SecondPass, "from_latents", fail)
    runnable = start("sd1")
    bad = runnable.submit(wanted(3, {"scale": 1.5}, num_images_per_prompt=3))
    good = [runnable.submit(wanted(3, seed=seed)) for seed in range(3)]
    assert "log says why" in str(bad.future.exception(timeout=300))
    assert all(ticket.future.result(timeout=300).images for ticket in good)
    assert runnable.load() == Load()
