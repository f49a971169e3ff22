"""LoRAs and ControlNets of FLUX.1 equal diffusers' own, whatever shares the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from runnables.errors import InvalidInput
from runnables.extensions.controlnet.flux import FluxControlNet
from runnables.parameters import ControlNetUse, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs
from tests import tiny
from tests.runnables.engine import reference
from tests.runnables.engine.test_parity import BOUND
from tests.runnables.extensions.test_stable_diffusion_3 import (
    RANK,
    _mean_latents,
    _random,
    difference,
    expected,
)
from tests.runnables.extensions.test_stable_diffusion_3 import wanted as plain

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
#: layers of the first block in the original code -> diffusers', with their inputs and outputs
KOHYA = {
    "img_attn_qkv": (("attn.to_q", "attn.to_k", "attn.to_v"), 32, 96),
    "txt_attn_qkv": (("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"), 32, 96),
    "img_attn_proj": (("attn.to_out.0",), 32, 32),
    "img_mlp_0": (("ff.net.0.proj",), 32, 128),
    "txt_mlp_2": (("ff_context.net.2",), 128, 32),
}


def wanted(*loras: tuple[str, float], **options: Any) -> Any:
    return plain(*loras, **{"guidance_scale": 3.5, "height": 64, "width": 64, **options})


@pytest.fixture(scope="module")
def dev(tiny_model: TinyModel) -> Path:
    folder = tiny_model("flux-dev")
    (folder / "profile.json").write_text('{"height": 64, "width": 64}')
    return folder


def write_kohya(folder: Path, name: str = "kohya", **text: float) -> None:
    """Write a LoRA of the first block in sd-scripts' names, with alphas.

    Args:
        text: how strong it is in layers of the text encoder.
    """
    generator = torch.Generator().manual_seed(5)
    weights: dict[str, torch.Tensor] = {}
    for layer, (_, into, out) in KOHYA.items():
        stem = f"lora_unet_double_blocks_0_{layer}"
        weights[f"{stem}.lora_down.weight"] = _random((RANK, into), generator)
        weights[f"{stem}.lora_up.weight"] = _random((out, RANK), generator)
        weights[f"{stem}.alpha"] = torch.tensor(1.5)
    for layer, strength in (text or {"q_proj": 1, "out_proj": 1}).items():
        stem = f"lora_te1_text_model_encoder_layers_0_self_attn_{layer}"
        weights[f"{stem}.lora_down.weight"] = _random((RANK, tiny.TEXT_WIDTH), generator)
        weights[f"{stem}.lora_up.weight"] = strength * _random((tiny.TEXT_WIDTH, RANK), generator)
        weights[f"{stem}.alpha"] = torch.tensor(1.5)
    save_file(
        {key: value.contiguous() for key, value in weights.items()}, folder / f"{name}.safetensors"
    )


def write_diffusers(
    folder: Path, name: str, model: Path, seed: int, alpha: float | None = None
) -> None:
    """Write a LoRA of the transformer and of CLIP in diffusers' names."""
    generator = torch.Generator().manual_seed(seed)
    pipeline = reference.pipeline(model, TextToImage)
    endings = {
        "transformer": ("to_q", "add_k_proj", "proj_mlp", "proj_out"),
        "text_encoder": ("q_proj",),
    }
    weights: dict[str, torch.Tensor] = {}
    for component, ending in endings.items():
        for path, layer in getattr(pipeline, component).named_modules():
            if path.endswith(ending):
                out, into = layer.weight.shape
                weights[f"{component}.{path}.lora_A.weight"] = _random((RANK, into), generator)
                weights[f"{component}.{path}.lora_B.weight"] = _random((out, RANK), generator)
                if alpha is not None:
                    weights[f"{component}.{path}.alpha"] = torch.tensor(alpha)
    save_file(weights, folder / f"{name}.safetensors")


def test_loras_in_one_batch_equal_diffusers(start: Start, dev: Path, tmp_path: Path) -> None:
    write_diffusers(tmp_path, "one", dev, 1)
    write_diffusers(tmp_path, "two", dev, 2)
    write_diffusers(tmp_path, "scaled", dev, 3, alpha=0.75)
    write_kohya(tmp_path)
    write_kohya(tmp_path, "partial", q_proj=1)
    diffusers_reads = tmp_path / "diffusers"  # it needs an out_proj to know kohya's names
    diffusers_reads.mkdir()
    write_kohya(diffusers_reads, "partial", q_proj=1, out_proj=0)
    runnable = start("flux-dev", lora_dir=str(tmp_path))
    every = [
        wanted(),
        wanted(("one", 0.8), num_inference_steps=6),
        wanted(("one", -0.4), ("two", 1.0), seed=2, guidance_scale=1.5),
        wanted(("kohya", 1.0)),
        wanted(("scaled", 1.0), seed=4),
        wanted(("partial", 1.0)),
    ]
    tickets = [runnable.submit(one) for one in every]
    for one, ticket in zip(every, tickets, strict=True):
        result = ticket.future.result(timeout=300)
        folder = diffusers_reads if one is every[-1] else tmp_path
        pixels = expected(dev, folder, result.parameters)
        assert difference(result.images[0].image, pixels) <= BOUND, one.loras
    images = [ticket.future.result().images[0].image for ticket in tickets]
    assert difference(images[0], images[3]) > BOUND, "kohya's acts"


@pytest.fixture(scope="module")
def nets(dev: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nets")
    tiny.build_flux_controlnet(folder / "one", dev)
    tiny.build_flux_controlnet(folder / "plain", dev, seed=1, guidance_embeds=False)
    tiny.build_flux_controlnet(folder / "short", dev, seed=2, num_single_layers=0)
    tiny.build_flux_controlnet(folder / "deep", dev, seed=3, num_layers=2, num_single_layers=1)
    tiny.build_flux_controlnet(folder / "union", dev, num_mode=3)
    return folder


def controlled(model: Path, nets: Path, one: Any, picture: Image.Image) -> Any:
    from diffusers import FluxControlNetModel, FluxControlNetPipeline

    (use,) = one.controlnets
    diffuser = FluxControlNetPipeline(
        **reference.pipeline(model, TextToImage).components,
        controlnet=FluxControlNetModel.from_pretrained(nets / use.name),
    )
    diffuser.set_progress_bar_config(disable=True)
    with _mean_latents(diffuser.vae):
        pixels = diffuser(
            one.prompt,
            control_image=picture,
            controlnet_conditioning_scale=use.weight,
            control_guidance_start=use.start,
            control_guidance_end=use.end,
            height=64,
            width=64,
            num_inference_steps=one.num_inference_steps,
            guidance_scale=one.guidance_scale,
            generator=torch.Generator().manual_seed(one.seed),
            output_type="np",
        ).images[0]
    return (pixels * 255).round()


def test_controlnets_in_one_batch_equal_diffusers(
    start: Start, dev: Path, nets: Path, photo: Image.Image
) -> None:
    runnable = start("flux-dev", controlnet_dir=str(nets))
    uses = [
        ControlNetUse(name="one"),
        ControlNetUse(name="plain", weight=0.6, end=0.5),
        ControlNetUse(name="short", start=0.3),
    ]
    every = [wanted(controlnets=(use,), seed=seed) for seed, use in enumerate(uses)]
    tickets = [runnable.submit(one, Inputs(controls=(photo,))) for one in every]
    free = runnable.submit(wanted(seed=0))
    images = [ticket.future.result(timeout=300).images[0].image for ticket in tickets]
    for one, image in zip(every, images, strict=True):
        assert difference(image, controlled(dev, nets, one, photo)) <= BOUND, one.controlnets
    result = free.future.result(timeout=300)
    assert difference(result.images[0].image, reference.generate(dev, result.parameters)) <= BOUND
    assert difference(result.images[0].image, images[0]) > BOUND
    assert np.asarray(images[0]).shape == (64, 64, 3)


def test_controlnets_of_different_depth_act_together(
    start: Start, nets: Path, photo: Image.Image
) -> None:
    runnable = start("flux-dev", controlnet_dir=str(nets))

    def image(*uses: ControlNetUse) -> Any:
        controls = (photo,) * len(uses)
        ticket = runnable.submit(wanted(controlnets=uses), Inputs(controls=controls))
        return ticket.future.result(timeout=300).images[0].image

    one, deep = ControlNetUse(name="one"), ControlNetUse(name="deep")
    faint = {name: ControlNetUse(name=name, weight=1e-6) for name in ("one", "short", "deep")}
    alone = image(one)
    for other in ("short", "deep"):
        assert difference(image(one, faint[other]), np.asarray(alone)) <= BOUND, other
    assert difference(image(deep, faint["one"]), np.asarray(image(deep))) <= BOUND
    assert difference(image(one, deep), np.asarray(alone)) > BOUND


def test_few_residuals_stand_for_all_blocks_as_in_diffusers() -> None:
    transformer = SimpleNamespace(transformer_blocks=[0] * 19, single_transformer_blocks=[0] * 38)
    net = FluxControlNet(
        "net", torch.nn.Linear(1, 1), cast(Any, SimpleNamespace(denoiser=transformer))
    )
    double, single = ([torch.tensor(float(i)) for i in range(count)] for count in (5, 10))
    blocks = net.sum((double, single), (double[:2], ()))
    assert [float(one) for one in blocks[0]] == [i // 4 + i // 10 for i in range(19)]
    assert [float(one) for one in blocks[1]] == [i // 4 for i in range(38)]
    only = [torch.tensor(100.0)]
    assert [float(one) for one in net.sum((double, ()), (only, ()))[0]] == [
        100 + i // 4 for i in range(19)
    ]


def test_a_union_controlnet_is_refused(start: Start, nets: Path, photo: Image.Image) -> None:
    runnable = start("flux-dev", controlnet_dir=str(nets))
    with pytest.raises(InvalidInput, match="num_mode is 3, which is not supported"):
        runnable.submit(
            wanted(controlnets=(ControlNetUse(name="union"),)), Inputs(controls=(photo,))
        )
