"""ControlNets a request: as diffusers' ControlNet pipelines draw them, in mixed batches."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from runnables.accelerators.cpu.packed import PackedConv2d, PointwiseConv2d
from runnables.checkpoints.checkpoint import Compiled
from runnables.errors import ConfigurationError, GenerationFailed, InvalidInput, UnknownName
from runnables.extensions.controlnet import folder
from runnables.extensions.controlnet.residuals import kept
from runnables.parameters import ControlNetUse, ImageToImage, Inpaint, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs
from tests import tiny
from tests.insides import base_of, extension_of, model_of, sharing, untraced
from tests.runnables.engine import reference

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
Nets = Callable[..., Path]
SUFFIX = {"txt2img": "", "img2img": "Img2Img", "inpaint": "Inpaint"}
BOUND = 2


@pytest.fixture(scope="module")
def edges() -> list[Image.Image]:
    """Two control images, neither of the size that is drawn."""
    pixels = np.random.default_rng(3).integers(0, 2, (2, 24, 40, 3), dtype=np.uint8) * 255
    return [Image.fromarray(one) for one in pixels]


def steered(pictures: Sequence[Image.Image]) -> Inputs:
    return Inputs(controls=tuple(pictures))


def wanted(
    *uses: ControlNetUse, task: type[TextToImage] = TextToImage, seed: int = 1, **options: Any
) -> TextToImage:
    given = {"prompt": "a cat", "num_inference_steps": 4, "guidance_scale": 5.0, "seed": seed}
    return task(**(given | {"height": 64, "width": 64} | options), controlnets=uses)


def use(name: str, weight: float = 1.0, start: float = 0.0, end: float = 1.0) -> ControlNetUse:
    return ControlNetUse(name=name, weight=weight, start=start, end=end)


def inputs(
    one: TextToImage, photo: Image.Image, mask: Image.Image
) -> tuple[Image.Image | None, Image.Image | None]:
    image = photo if isinstance(one, ImageToImage) else None
    return image, mask if isinstance(one, Inpaint) else None


def expected(
    model: Path,
    folder: Path,
    one: TextToImage,
    controls: list[Image.Image],
    image: Image.Image | None = None,
    mask: Image.Image | None = None,
) -> np.ndarray:
    """diffusers' own image, (H, W, 3)."""
    if not one.controlnets:
        return reference.generate(model, one, image, mask).astype(int)
    diffuser, call = diffuser_of(model, folder, type(one), one.controlnets), call_of(one)
    call["image" if image is None else "control_image"] = listed(controls)
    if isinstance(one, ImageToImage):
        call |= {"image": image, "strength": one.strength}
    if mask is not None:
        call["mask_image"] = mask
    return (diffuser(**call).images[0] * 255).round().astype(int)


def diffuser_of(
    model: Path, folder: Path, task: type[TextToImage], uses: Sequence[ControlNetUse]
) -> Any:
    """diffusers' pipeline with these ControlNets."""
    import diffusers

    plain = reference.pipeline(model, task)
    models = [diffusers.ControlNetModel.from_pretrained(folder / u.name) for u in uses]
    suffix = SUFFIX[task.task]
    family = type(plain).__name__.removesuffix(f"{suffix}Pipeline")
    components = {**plain.components, "controlnet": models if len(models) > 1 else models[0]}
    if "safety_checker" in components:
        components["requires_safety_checker"] = False
    scheduler = plain.scheduler.from_config(plain.scheduler.config)
    diffuser = getattr(diffusers, f"{family}ControlNet{suffix}Pipeline")(
        **{**components, "scheduler": scheduler}
    )
    diffuser.set_progress_bar_config(disable=True)
    return diffuser


def listed(values: list[Any]) -> Any:
    return values if len(values) > 1 else values[0]


def call_of(one: TextToImage) -> dict[str, Any]:
    return {
        "prompt": one.prompt,
        "num_inference_steps": one.num_inference_steps,
        "guidance_scale": one.guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(one.seed or 0),
        "output_type": "np",
        "height": one.height,
        "width": one.width,
        "controlnet_conditioning_scale": listed([u.weight for u in one.controlnets]),
        "control_guidance_start": listed([u.start for u in one.controlnets]),
        "control_guidance_end": listed([u.end for u in one.controlnets]),
    }


def difference(image: Image.Image, pixels: np.ndarray) -> int:
    return int(np.abs(np.asarray(image).astype(int) - pixels).max())


MIXED: list[TextToImage] = [
    wanted(),
    wanted(use("one")),
    wanted(use("one", 0.6), seed=2, guidance_scale=1.0),
    wanted(use("two", 1.5, start=0.25), seed=3),
    wanted(use("one", 1.0, end=0.5), seed=4, num_inference_steps=6),
    wanted(use("two", 0.7), use("one", 0.4, start=0.3, end=0.8), seed=5),
    wanted(use("one"), use("one", 0.5), seed=6),
    wanted(use("pooled"), seed=7),
    wanted(use("one"), seed=8, task=ImageToImage, strength=0.6, num_inference_steps=5),
    wanted(use("two", end=0.7), use("one"), task=ImageToImage, seed=9, guidance_scale=1.0),
    wanted(task=ImageToImage, seed=9),
    wanted(use("two", 0.9), seed=10, task=Inpaint, strength=0.8),
]


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_mixed_controlnets_in_one_batch_equal_diffusers(
    kind: str,
    start: Start,
    tiny_model: TinyModel,
    controlnets: Nets,
    edges: list[Image.Image],
    photo: Image.Image,
    mask: Image.Image,
) -> None:
    runnable = start(kind, controlnet_dir=str(controlnets(kind)))
    tickets = []
    for one in MIXED:
        controls = edges[: len(one.controlnets)]
        tickets.append(
            runnable.submit(one, Inputs(*inputs(one, photo, mask), controls=tuple(controls)))
        )
    for one, ticket in zip(MIXED, tickets, strict=True):
        result = ticket.future.result(timeout=300)
        given = inputs(one, photo, mask)
        controls = edges[: len(one.controlnets)]
        pixels = expected(tiny_model(kind), controlnets(kind), result.parameters, controls, *given)
        assert difference(result.images[0].image, pixels) <= BOUND, (one.task, one.controlnets)
        if one.controlnets:
            without = one.model_copy(update={"controlnets": ()})
            plain = runnable.submit(without, Inputs(*given)).future.result().images[0].image
            assert difference(plain, pixels) > 2 * BOUND, "the ControlNet acts"


def test_alone_as_in_company(
    start: Start, tiny_model: TinyModel, controlnets: Nets, edges: list[Image.Image]
) -> None:
    runnable = start("sd1", controlnet_dir=str(controlnets("sd1")), max_batch=2)
    one = wanted(use("two"), use("one", 0.5), num_images_per_prompt=2)
    drawn = runnable.submit(one, steered(edges)).future.result(timeout=300).images
    for image, seed in zip(drawn, (1, 2), strict=True):
        alone = one.model_copy(update={"num_images_per_prompt": 1, "seed": seed})
        pixels = expected(tiny_model("sd1"), controlnets("sd1"), alone, edges)
        assert difference(image.image, pixels) <= BOUND


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_both_passes_are_controlled(
    kind: str,
    start: Start,
    tiny_model: TinyModel,
    controlnets: Nets,
    edges: list[Image.Image],
) -> None:
    folder, model = controlnets(kind), tiny_model(kind)
    uses = (use("one"), use("two", 0.6, end=0.5))
    hires = {"scale": 2, "strength": 0.6, "num_inference_steps": 5}
    asked = wanted(*uses, hires=hires)
    drawn = start(kind, controlnet_dir=str(folder)).submit(asked, steered(edges)).future.result()
    call = call_of(asked)
    first = diffuser_of(model, folder, TextToImage, uses)
    latents = first(**call | {"image": edges, "output_type": "latent"}).images
    larger = {"height": 128, "width": 128, "num_inference_steps": 5, "strength": 0.6}
    second = diffuser_of(model, folder, ImageToImage, uses)
    pixels = second(
        **call
        | larger
        | {
            "image": torch.nn.functional.interpolate(latents, size=(16, 16), mode="bilinear"),
            "control_image": edges,
        }
    ).images[0]
    assert difference(drawn.images[0].image, (pixels * 255).round().astype(int)) <= BOUND


def test_an_inpainting_unet_of_nine_channels(
    start: Start,
    tiny_model: TinyModel,
    controlnets: Nets,
    edges: list[Image.Image],
    photo: Image.Image,
    mask: Image.Image,
) -> None:
    kind = "sd1-inpaint"
    one = wanted(use("one"), task=Inpaint, strength=1.0)
    runnable = start(kind, controlnet_dir=str(controlnets(kind)))
    drawn = runnable.submit(one, Inputs(photo, mask, controls=tuple(edges[:1]))).future.result(
        timeout=300
    )
    pixels = expected(tiny_model(kind), controlnets(kind), one, edges[:1], photo, mask)
    assert difference(drawn.images[0].image, pixels) <= BOUND


def test_a_refiner_has_none_and_leaves_the_fractions_as_they_are(
    start: Start, tiny_model: TinyModel, controlnets: Nets, edges: list[Image.Image]
) -> None:
    import diffusers

    folder, refiner = controlnets("sdxl"), tiny_model("sdxl-refiner")
    runnable = start("sdxl", refiner=str(refiner), controlnet_dir=str(folder))
    one = wanted(use("one", end=0.5), num_inference_steps=10)
    drawn = runnable.submit(one, steered(edges[:1])).future.result(timeout=300)
    plain = reference.pipeline(tiny_model("sdxl"), TextToImage)
    first = diffusers.StableDiffusionXLControlNetPipeline(
        **{**plain.components, "scheduler": plain.scheduler.from_config(plain.scheduler.config)},
        controlnet=diffusers.ControlNetModel.from_pretrained(folder / "one"),
    )
    second = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(refiner)
    options: dict[str, Any] = {
        "prompt": one.prompt,
        "num_inference_steps": 10,
        "guidance_scale": 5.0,
        "generator": torch.Generator().manual_seed(1),
    }
    latents = first(
        **options,
        image=edges[0],
        height=64,
        width=64,
        control_guidance_end=0.5,
        denoising_end=0.8,
        output_type="latent",
    ).images
    pixels = second(**options, image=latents, denoising_start=0.8, output_type="np").images[0]
    assert difference(drawn.images[0].image, (pixels * 255).round().astype(int)) <= BOUND


def test_it_acts_when_it_does_in_diffusers(
    tiny_model: TinyModel, controlnets: Nets, edges: list[Image.Image]
) -> None:
    """diffusers calls it at every step, with scale 0 where it does not act."""
    pipeline = diffuser_of(tiny_model("sd1"), controlnets("sd1"), TextToImage, [use("one")])
    acted: list[bool] = []

    def look(_net: Any, _given: Any, named: dict[str, Any]) -> None:
        acted.append(named["conditioning_scale"] > 0)

    pipeline.controlnet.register_forward_pre_hook(look, with_kwargs=True)
    for start, end in ((0.0, 1.0), (0.25, 1.0), (0.0, 0.5), (0.3, 0.35)):
        for steps in (1, 4, 7):
            one = wanted(use("one", 1.0, start, end), num_inference_steps=steps)
            acted.clear()
            pipeline(**call_of(one), image=edges[0])
            assert kept(start, end, len(acted)) == tuple(acted), (start, end, steps)


@pytest.fixture
def sd1(start: Start, controlnets: Nets) -> StableDiffusionRunnable:
    return start("sd1", controlnet_dir=str(controlnets("sd1")))


def test_it_is_run_only_where_it_acts(
    sd1: StableDiffusionRunnable, edges: list[Image.Image]
) -> None:
    net = extension_of(sd1, "controlnets").load(wanted(use("one")))[0].model
    rows: list[int] = []
    net.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    one = wanted(use("one", start=0.25, end=0.75), scheduler="ddim")
    sd1.submit(one, steered(edges[:1])).future.result(timeout=300)
    assert rows == [2, 2], "two of four steps, conditional and unconditional"
    sd1.submit(wanted(use("one", 0.0)), steered(edges[:1])).future.result(timeout=300)
    assert rows == [2, 2], "never with weight 0"


def test_rows_with_and_without_share_a_call(
    sd1: StableDiffusionRunnable, edges: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [wanted(), wanted(use("one")), wanted(use("two")), wanted(use("two"), use("one"))]
    every = [one.model_copy(update={"num_inference_steps": 20}) for one in every]
    with sharing(monkeypatch, type(base_of(sd1))) as rows:
        tickets = [sd1.submit(one, steered(edges[: len(one.controlnets)])) for one in every]
    for ticket in tickets:
        ticket.future.result(timeout=300)
    assert max(rows) == 8


def test_a_request_with_controlnets_costs_more(
    sd1: StableDiffusionRunnable, edges: list[Image.Image]
) -> None:
    plain = sd1.submit(wanted()).future.result(timeout=300)
    one = sd1.submit(wanted(use("one")), steered(edges[:1])).future.result(timeout=300)
    two = sd1.submit(wanted(use("one"), use("two")), steered(edges)).future.result(timeout=300)
    assert one.cost_units == pytest.approx(1.4 * plain.cost_units)
    assert two.cost_units == pytest.approx(1.8 * plain.cost_units)


def test_one_that_fails_ends_its_own_request_only(
    sd1: StableDiffusionRunnable, edges: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = extension_of(sd1, "controlnets").load(wanted(use("one")))[0].model

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(net, "forward", fail)
    every = [wanted(seed=2), wanted(use("one")), wanted(use("two"), seed=3)]
    tickets = [sd1.submit(one, steered(edges[: len(one.controlnets)])) for one in every]
    with pytest.raises(GenerationFailed):
        tickets[1].future.result(timeout=300)
    monkeypatch.undo()
    for i in (0, 2):
        drawn = tickets[i].future.result(timeout=300).images[0].image
        again = sd1.submit(every[i], steered(edges[: len(every[i].controlnets)]))
        pixels = np.asarray(again.future.result(timeout=300).images[0].image).astype(int)
        assert difference(drawn, pixels) <= BOUND


def test_its_convolutions_are_packed(sd1: StableDiffusionRunnable) -> None:
    net = extension_of(sd1, "controlnets").load(wanted(use("one")))[0]
    convolutions = [m for m in net.model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(isinstance(one, PackedConv2d | PointwiseConv2d) for one in convolutions)
    assert net.nbytes > 1000


def test_images_and_controlnets_come_in_equal_numbers(
    sd1: StableDiffusionRunnable, edges: list[Image.Image]
) -> None:
    cases = [(wanted(use("one")), []), (wanted(), edges[:1]), (wanted(use("one")), edges)]
    for one, controls in cases:
        for refuse in (sd1.submit, sd1.plan):
            with pytest.raises(InvalidInput, match="controlnets") as caught:
                refuse(one, steered(controls))
            assert caught.value.loc == ("control",)


def test_deep_cache_is_refused(sd1: StableDiffusionRunnable, edges: list[Image.Image]) -> None:
    with pytest.raises(InvalidInput) as caught:
        sd1.submit(wanted(use("one"), deep_cache_interval=2), steered(edges[:1]))
    assert caught.value.loc == ("deep_cache_interval",)


def test_compiled_models_take_none(
    sd1: StableDiffusionRunnable, edges: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_of(sd1)
    checkpoint = replace(base.checkpoint, compiled=Compiled(sizes=((64, 64),), rows=2))
    compiled = type(base)(checkpoint, base.device, base.dtype)
    monkeypatch.setattr(base, "traits", compiled.traits)
    with pytest.raises(InvalidInput, match="not compiled") as caught:
        sd1.submit(wanted(use("one")), steered(edges[:1]))
    assert caught.value.loc == ("controlnets",)


def test_compiled_code_is_not_run_with_them(
    sd1: StableDiffusionRunnable, edges: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch.compile leaves the UNet with SD_COMPILE: another graph would take minutes."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the compiled graph")

    untraced(monkeypatch)
    monkeypatch.setattr(base_of(sd1).unet, "_compiled_call_impl", fail)
    assert sd1.submit(wanted(use("one")), steered(edges[:1])).future.result(timeout=300)
    with pytest.raises(GenerationFailed):
        sd1.submit(wanted()).future.result(timeout=300)


def test_what_is_not_there_or_does_not_fit_is_refused(
    start: Start, tiny_model: TinyModel, controlnets: Nets, edges: list[Image.Image], tmp_path: Path
) -> None:
    shutil.copytree(controlnets("sd1") / "one", tmp_path / "one")
    tiny.build_controlnet(tmp_path / "xl", tiny_model("sdxl"))
    tiny.build_controlnet(tmp_path / "nine", tiny_model("sd1"), in_channels=9)
    tiny.build_controlnet(
        tmp_path / "coarse",
        tiny_model("sd1"),
        conditioning_embedding_out_channels=(8, 8, 16),
    )
    for name, config in {"text": "nothing", "list": "[]", "union": '{"_class_name": "X"}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    shutil.copytree(tmp_path / "one", tmp_path / "empty")
    shutil.copytree(tmp_path / "one", tmp_path / "cut")
    weights = tmp_path / "empty" / "diffusion_pytorch_model.safetensors"
    cut = tmp_path / "cut" / weights.name
    cut.write_bytes(weights.read_bytes()[:2000])
    weights.unlink()
    runnable = start("sd1", controlnet_dir=str(tmp_path))
    listed = [each["name"] for each in runnable.listed("controlnets")]
    broken = {"xl", "nine", "coarse", "text", "list", "union", "empty", "cut"}
    assert listed == sorted(broken | {"one"})
    for name in ("oen", "../one", str(tmp_path / "one")):
        with pytest.raises(UnknownName, match="no controlnet") as caught:
            runnable.submit(wanted(use(name)), steered(edges[:1]))
        assert caught.value.loc == ("controlnets",)
    for name in broken:
        with pytest.raises(InvalidInput, match=name) as refused:
            runnable.submit(wanted(use(name)), steered(edges[:1]))
        assert refused.value.loc == ("controlnets",)
        assert str(tmp_path) not in refused.value.message
    assert runnable.submit(wanted(use("one")), steered(edges[:1])).future.result(timeout=300)


def test_one_that_no_memory_is_left_for_is_a_failure_and_not_tried_for_ever(
    sd1: StableDiffusionRunnable, controlnets: Nets
) -> None:
    """Jobs and the queue's tasks wait and come again after OverCapacity, as often as it takes."""

    def adopt(_: object) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(GenerationFailed, match="no memory is left for the ControlNet 'one'"):
        folder.load("one", controlnets("sd1") / "one", model_of(sd1).base, adopt)


def test_a_folder_that_is_not_there_stops_the_start(start: Start) -> None:
    with pytest.raises(ConfigurationError, match="SD_CONTROLNET_DIR"):
        start("sd1", controlnet_dir="/nowhere")


def test_the_oldest_is_let_go(
    start: Start, tiny_model: TinyModel, controlnets: Nets, edges: list[Image.Image]
) -> None:
    runnable = start("sd1", controlnet_dir=str(controlnets("sd1")), adapters_memory_mb=0)
    nets, memory = extension_of(runnable, "controlnets"), model_of(runnable).memory
    one = runnable.submit(wanted(use("one")), steered(edges[:1]))
    size = nets.nbytes
    two = runnable.submit(wanted(use("two")), steered(edges[:1]))
    assert nets.nbytes == memory.adapters == size, "one at a time"
    for name, ticket in (("one", one), ("two", two)):
        image = ticket.future.result(timeout=300).images[0].image
        parameters = ticket.future.result().parameters
        pixels = expected(tiny_model("sd1"), controlnets("sd1"), parameters, edges[:1])
        assert difference(image, pixels) <= BOUND, name
