"""LoRAs, ControlNets and skipped layers act on Stable Diffusion 3 as in diffusers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from runnables.errors import InvalidInput
from runnables.parameters import (
    ControlNetUse,
    ImageToImage,
    LoraUse,
    SkipLayerGuidance,
    TextToImage,
)
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs
from tests import tiny
from tests.runnables.engine import reference

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
BOUND = 2
RANK = 3
BLOCK = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out")
LAYERS = (*BLOCK, "ff.net.2", "ff_context.net.0.proj", "norm1.linear", "norm1_context.linear")
TEXT = ("q_proj", "out_proj", "fc1")


def steered(pictures: Sequence[Image.Image]) -> Inputs:
    return Inputs(controls=tuple(pictures))


def wanted(*loras: tuple[str, float], task: type = TextToImage, **options: Any) -> Any:
    arguments = {"prompt": "a cat", "num_inference_steps": 4, "guidance_scale": 5.0, "seed": 1}
    uses = tuple(LoraUse(name=name, weight=weight) for name, weight in loras)
    return task(**(arguments | options), loras=uses)


def difference(image: Any, pixels: Any) -> int:
    return int(np.abs(np.asarray(image).astype(int) - np.asarray(pixels).astype(int)).max())


def write(folder: Path, name: str, model: Path, *, seed: int = 0, prefix: str = "") -> None:
    """Write a LoRA of the transformer and, without another prefix, of both CLIP encoders."""
    pipeline = reference.pipeline(model, TextToImage)
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    components = ("transformer",) if prefix else ("transformer", "text_encoder", "text_encoder_2")
    for component in components:
        for path, layer in getattr(pipeline, component).named_modules():
            if path.endswith(LAYERS if component == "transformer" else TEXT):
                out, into = layer.weight.shape
                stem = f"{prefix or component + '.'}{path}"
                weights[f"{stem}.lora_A.weight"] = _random((RANK, into), generator)
                weights[f"{stem}.lora_B.weight"] = _random((out, RANK), generator)
    save_file(weights, folder / f"{name}.safetensors")


def _random(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator) * 0.2


def write_kohya(folder: Path) -> None:
    """Write the same LoRA as `kohya`, in sd-scripts' names, and as `plain`, in diffusers'."""
    generator = torch.Generator().manual_seed(5)
    theirs: dict[str, torch.Tensor] = {}
    ours: dict[str, torch.Tensor] = {}

    def layer(name: str, paths: list[str], into: int, out: int, swap: bool = False) -> None:
        down, up = _random((RANK, into), generator), _random((out, RANK), generator)
        theirs[f"{name}.lora_down.weight"], theirs[f"{name}.lora_up.weight"] = down, up
        theirs[f"{name}.alpha"] = torch.tensor(1.5)
        up = torch.cat(up.chunk(2)[::-1]) if swap else up
        for path, part in zip(paths, up.chunk(len(paths)), strict=True):
            ours[f"{path}.lora_A.weight"] = down.clone()
            ours[f"{path}.lora_B.weight"] = (part * 1.5 / RANK).contiguous()

    for i in range(3):
        theirs_block, ours_block = (
            f"lora_unet_joint_blocks_{i}_",
            f"transformer.transformer_blocks.{i}.",
        )
        image = [f"{ours_block}attn.to_{one}" for one in "qkv"]
        text = [f"{ours_block}attn.add_{one}_proj" for one in "qkv"]
        layer(f"{theirs_block}x_block_attn_qkv", image, 32, 96)
        layer(f"{theirs_block}context_block_attn_qkv", text, 32, 96)
        layer(f"{theirs_block}x_block_mlp_fc1", [f"{ours_block}ff.net.0.proj"], 32, 128)
        last = i == 2
        modulation = [f"{ours_block}norm1_context.linear"]
        name = f"{theirs_block}context_block_adaLN_modulation_1"
        layer(name, modulation, 32, 64 if last else 192, swap=last)
    layer("lora_unet_final_layer_linear", ["transformer.proj_out"], 32, 64)
    stem = "text_model_encoder_layers_0_self_attn_q_proj"
    path = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    layer(f"lora_te1_{stem}", [path], tiny.TEXT_WIDTH, tiny.TEXT_WIDTH)
    save_file(theirs, folder / "kohya.safetensors")
    save_file(ours, folder / "plain.safetensors")


def expected(model: Path, folder: Path, one: TextToImage) -> np.ndarray:
    """Return diffusers' own image, with peft."""
    pipeline = reference.pipeline(model, TextToImage)
    try:
        for use in one.loras:
            file = f"{use.name}.safetensors"
            pipeline.load_lora_weights(str(folder), weight_name=file, adapter_name=use.name)
        if one.loras:
            names, weights = zip(*((use.name, use.weight) for use in one.loras), strict=True)
            pipeline.set_adapters(list(names), list(weights))
        return reference.generate(model, one)
    finally:
        pipeline.unload_lora_weights()


def test_mixed_loras_in_one_batch_equal_diffusers(
    start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    model = tiny_model("sd3")
    write(tmp_path, "one", model)
    write(tmp_path, "two", model, seed=1)
    runnable = start("sd3", lora_dir=str(tmp_path))
    every = [
        wanted(),
        wanted(("one", 0.8), scheduler="dpmpp_2m", num_inference_steps=6),
        wanted(("one", -0.4), ("two", 1.0), seed=2),
        wanted(("two", 0.5), guidance_scale=1.0),
    ]
    tickets = [runnable.submit(one) for one in every]
    for one, ticket in zip(every, tickets, strict=True):
        result = ticket.future.result(timeout=300)
        pixels = expected(model, tmp_path, result.parameters)
        assert difference(result.images[0].image, pixels) <= BOUND, one.loras
    plain = tickets[0].future.result().images[0].image
    assert difference(runnable.txt2img(wanted(("one", 0.8))).images[0].image, plain) > BOUND


def test_names_of_kohya_and_of_peft(start: Start, tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tiny_model("sd3")
    write_kohya(tmp_path)
    write(tmp_path, "named", model, seed=9)
    write(tmp_path, "peft", model, seed=9, prefix="base_model.model.")
    runnable = start("sd3", lora_dir=str(tmp_path))
    images = {
        name: runnable.txt2img(wanted((name, 1.0))).images[0].image for name in ("kohya", "plain")
    }
    pixels = expected(model, tmp_path, runnable.txt2img(wanted(("plain", 1.0))).parameters)
    assert difference(images["kohya"], pixels) <= BOUND
    assert difference(images["plain"], pixels) <= BOUND
    assert difference(images["plain"], runnable.txt2img(wanted()).images[0].image) > BOUND
    assert runnable.txt2img(wanted(("peft", 1.0))).images, "its transformer's half is found"


def test_a_lora_for_another_family_is_refused(
    start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    save_file(
        {
            "lora_unet_joint_blocks_0_x_block_other.lora_down.weight": torch.ones(1, 1),
            "lora_unet_joint_blocks_0_x_block_other.lora_up.weight": torch.ones(1, 1),
        },
        tmp_path / "odd.safetensors",
    )
    with pytest.raises(InvalidInput, match="x_block_other is not known"):
        start("sd3", lora_dir=str(tmp_path)).submit(wanted(("odd", 1.0)))


# -- skipped layers -----------------------------------------------------------------------------

SKIP = SkipLayerGuidance(layers=(0, 2), scale=2.0, start=0.1, stop=0.7)


@pytest.mark.parametrize("kind", ["sd3", "sd3.5"])
def test_skipped_layers_in_mixed_batches_equal_diffusers(
    kind: str, start: Start, tiny_model: TinyModel
) -> None:
    runnable, folder = start(kind), tiny_model(kind)
    other = SkipLayerGuidance(layers=(1,), scale=1.0, start=0.0, stop=1.0)
    every = [
        wanted(skip_layer_guidance=SKIP, num_inference_steps=6),
        wanted(skip_layer_guidance=other, num_inference_steps=5, seed=2),
        wanted(seed=3),
        wanted(skip_layer_guidance=SKIP, guidance_scale=1.0),  # no guidance, so nothing is skipped
    ]
    tickets = [runnable.submit(one) for one in every]
    for one, ticket in zip(every, tickets, strict=True):
        result = ticket.future.result(timeout=300)
        pixels = _skipping(folder, one, result.parameters)
        assert difference(result.images[0].image, pixels) <= BOUND, one.skip_layer_guidance
    without = runnable.txt2img(wanted(num_inference_steps=6)).images[0].image
    assert difference(tickets[0].future.result().images[0].image, without) > BOUND


def _skipping(folder: Path, one: TextToImage, resolved: Any) -> Any:
    skip = one.skip_layer_guidance
    pipeline = reference.pipeline(folder, TextToImage)
    options = {}
    if skip is not None:
        options = {
            "skip_guidance_layers": list(skip.layers),
            "skip_layer_guidance_scale": skip.scale,
            "skip_layer_guidance_start": skip.start,
            "skip_layer_guidance_stop": skip.stop,
        }
    pixels = pipeline(
        one.prompt,
        num_inference_steps=one.num_inference_steps,
        guidance_scale=one.guidance_scale,
        generator=torch.Generator().manual_seed(one.seed or 0),
        output_type="np",
        **options,
    ).images[0]
    return (pixels * 255).round()


def test_a_third_row_is_run_only_where_layers_are_skipped(start: Start) -> None:
    runnable = start("sd3")
    rows: list[int] = []
    transformer = runnable._pool.first.base.denoiser  # type: ignore[union-attr]
    handle = transformer.register_forward_pre_hook(
        lambda _module, _given, named: rows.append(len(named["hidden_states"])), with_kwargs=True
    )
    runnable.txt2img(wanted(skip_layer_guidance=SKIP, num_inference_steps=10))
    handle.remove()
    assert rows == [2, 2, 3, 3, 3, 3, 3, 2, 2, 2], "1 < step < 7 of 10"


def test_layers_that_are_not_there_are_refused(start: Start) -> None:
    with pytest.raises(InvalidInput, match="layers 0 to 2") as caught:
        start("sd3").submit(wanted(skip_layer_guidance=SkipLayerGuidance(layers=(7, 8, 9))))
    assert caught.value.loc == ("skip_layer_guidance", "layers")
    with pytest.raises(InvalidInput, match="stable-diffusion models do not take"):
        start("sd1").submit(wanted(skip_layer_guidance=SKIP))


# -- ControlNets --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nets(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("nets"), tiny_model("sd3")
    tiny.build_sd3_controlnet(folder / "one", model)
    tiny.build_sd3_controlnet(
        folder / "pooled", model, seed=1, force_zeros_for_pooled_projection=False
    )
    tiny.build_sd3_controlnet(
        folder / "large", model, seed=2, use_pos_embed=False, joint_attention_dim=None
    )
    return folder


@contextmanager
def _mean_latents(vae: Any) -> Iterator[None]:
    """Return mean latents: diffusers draws a control image's from the posterior without a seed."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution as Posterior

    original = Posterior.sample
    Posterior.sample = lambda self, generator=None: self.mode()
    try:
        yield
    finally:
        Posterior.sample = original


def _controlled(model: Path, nets: Path, one: Any, pictures: list[Image.Image]) -> Any:
    from diffusers import SD3ControlNetModel, StableDiffusion3ControlNetPipeline

    plain = reference.pipeline(model, TextToImage)
    models = [SD3ControlNetModel.from_pretrained(nets / use.name) for use in one.controlnets]
    single = len(models) == 1
    diffuser = StableDiffusion3ControlNetPipeline(
        **plain.components, controlnet=models[0] if single else models
    )
    diffuser.set_progress_bar_config(disable=True)
    weights = [use.weight for use in one.controlnets]
    with _mean_latents(diffuser.vae):
        pixels = diffuser(
            one.prompt,
            control_image=pictures[0] if single else pictures,
            controlnet_conditioning_scale=weights[0] if single else weights,
            control_guidance_start=[use.start for use in one.controlnets],
            control_guidance_end=[use.end for use in one.controlnets],
            height=64,
            width=64,
            num_inference_steps=one.num_inference_steps,
            guidance_scale=one.guidance_scale,
            generator=torch.Generator().manual_seed(one.seed),
            output_type="np",
        ).images[0]
    return (pixels * 255).round()


def test_mixed_controlnets_in_one_batch_equal_diffusers(
    start: Start, tiny_model: TinyModel, nets: Path, photo: Image.Image
) -> None:
    runnable = start("sd3", controlnet_dir=str(nets))
    pictures = [photo, photo.rotate(90)]
    every = [
        wanted(controlnets=(ControlNetUse(name="one"),)),
        wanted(controlnets=(ControlNetUse(name="pooled", weight=0.6, end=0.5),), seed=2),
        wanted(controlnets=(ControlNetUse(name="large", start=0.3),), num_inference_steps=6),
        wanted(controlnets=(ControlNetUse(name="one", weight=0.5), ControlNetUse(name="one"))),
    ]
    tickets = [runnable.submit(one, steered(pictures[: len(one.controlnets)])) for one in every]
    free = runnable.submit(wanted(seed=8))
    for one, ticket in zip(every, tickets, strict=True):
        image = ticket.future.result(timeout=300).images[0].image
        pixels = _controlled(tiny_model("sd3"), nets, one, pictures[: len(one.controlnets)])
        assert difference(image, pixels) <= BOUND, one.controlnets
    result = free.future.result(timeout=300)
    assert (
        difference(result.images[0].image, reference.generate(tiny_model("sd3"), result.parameters))
        <= BOUND
    )


def test_a_controlnet_of_another_family_is_refused(
    start: Start, controlnets: Callable[[str], Path], photo: Image.Image, nets: Path
) -> None:
    use = (ControlNetUse(name="one"),)
    runnable = start("sd3", controlnet_dir=str(controlnets("sd1")))
    with pytest.raises(InvalidInput, match="this model takes SD3ControlNetModel"):
        runnable.submit(wanted(controlnets=use), steered([photo]))
    with pytest.raises(InvalidInput, match="this model takes ControlNetModel"):
        start("sd1", controlnet_dir=str(nets)).submit(wanted(controlnets=use), steered([photo]))


def test_all_at_once_on_an_input_image(
    start: Start, tiny_model: TinyModel, nets: Path, photo: Image.Image, tmp_path: Path
) -> None:
    """LoRA, ControlNet and skipped layers in one row change the image, and no other."""
    write(tmp_path, "one", tiny_model("sd3"))
    runnable = start("sd3", lora_dir=str(tmp_path), controlnet_dir=str(nets))
    alone = runnable.img2img(wanted(task=ImageToImage), photo).images[0].image
    use = (ControlNetUse(name="one"),)
    full = wanted(("one", 1.0), task=ImageToImage, controlnets=use, skip_layer_guidance=SKIP)
    tickets = [
        runnable.submit(full, Inputs(photo, controls=(photo,))),
        runnable.submit(wanted(task=ImageToImage), Inputs(photo)),
    ]
    changed, same = (ticket.future.result(timeout=300).images[0].image for ticket in tickets)
    assert difference(same, alone) <= BOUND
    assert difference(changed, alone) > BOUND
