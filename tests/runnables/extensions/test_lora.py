"""LoRAs a request: as diffusers' load_lora_weights and set_adapters draw them, in mixed batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from runnables.accelerators.cpu.device import Cpu
from runnables.assembly import family_of
from runnables.checkpoints.loading import load
from runnables.errors import InvalidInput, UnknownName
from runnables.extensions.lora import file as lora_file
from runnables.extensions.lora.file import read
from runnables.extensions.lora.layers import Factors, Lora
from runnables.parameters import LoraUse, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from tests.insides import base_of
from tests.runnables.engine import reference

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
UNET = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "ff.net.2")
TEXT = ("q_proj", "v_proj", "out_proj", "fc1")
RANK = 3


def write(folder: Path, name: str, model: Path, *, kohya: bool = False, seed: int = 0) -> None:
    """A LoRA for the model's UNet and text encoders, in diffusers' or in kohya's naming."""
    pipeline = reference.pipeline(model, TextToImage)
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        module = getattr(pipeline, component, None)
        for path, layer in module.named_modules() if module is not None else ():
            if path.endswith(UNET if component == "unet" else TEXT):
                _factors(weights, component, path, layer, generator, kohya)
    save_file(weights, folder / f"{name}.safetensors")


def _factors(
    weights: dict[str, torch.Tensor],
    component: str,
    path: str,
    layer: Any,
    generator: torch.Generator,
    kohya: bool,
) -> None:
    out, into, *kernel = layer.weight.shape
    down = torch.randn(RANK, into, *kernel, generator=generator) * 0.3
    up = torch.randn(out, RANK, *[1] * len(kernel), generator=generator) * 0.3
    if not kohya:
        weights |= {
            f"{component}.{path}.lora_A.weight": down,
            f"{component}.{path}.lora_B.weight": up,
        }
        return
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[component]
    stem = prefix + path.replace(".", "_")
    weights |= {
        f"{stem}.lora_down.weight": down,
        f"{stem}.lora_up.weight": up,
        f"{stem}.alpha": torch.tensor(1.5),
    }


def wanted(*loras: tuple[str, float], seed: int = 1, **options: Any) -> TextToImage:
    given = {"prompt": "a cat", "num_inference_steps": 4, "guidance_scale": 5.0, "seed": seed}
    uses = tuple(LoraUse(name=name, weight=weight) for name, weight in loras)
    return TextToImage(**(given | options), loras=uses)


def expected(model: Path, folder: Path, one: TextToImage) -> np.ndarray:
    """diffusers' own, with peft."""
    pipeline = reference.pipeline(model, TextToImage)
    try:
        for use in one.loras:
            file = f"{use.name}.safetensors"
            pipeline.load_lora_weights(str(folder), weight_name=file, adapter_name=use.name)
        if one.loras:
            weights = [
                {
                    part: use.weight if part == "unet" else use.in_text
                    for part in pipeline.get_list_adapters()
                }
                for use in one.loras
            ]
            pipeline.set_adapters([use.name for use in one.loras], weights)
        return reference.generate(model, one).astype(int)
    finally:
        pipeline.unload_lora_weights()


def difference(image: Any, pixels: np.ndarray) -> int:
    return int(np.abs(np.asarray(image).astype(int) - pixels).max())


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_mixed_loras_in_one_batch_equal_diffusers(
    kind: str, start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    model = tiny_model(kind)
    write(tmp_path, "one", model)
    write(tmp_path, "two", model, seed=1, kohya=kind == "sd1")
    runnable = start(kind, lora_dir=str(tmp_path))
    every = [
        wanted(),
        wanted(("one", 0.8)),
        wanted(("one", -0.4), ("two", 1.0), seed=2),
        wanted(("two", 0.5), guidance_scale=1.0),
        wanted(("one", 0.8), prompt_syntax="plain", deep_cache_interval=1, seed=3),
        wanted(("one", 0.9)).model_copy(
            update={"loras": (LoraUse(name="one", weight=0.9, text_weight=0),)}
        ),
    ]
    tickets = [runnable.submit(one) for one in every]
    for one, ticket in zip(every, tickets, strict=True):
        result = ticket.future.result(timeout=300)
        pixels = expected(model, tmp_path, result.parameters)
        assert difference(result.images[0].image, pixels) <= 2, one.loras
    plain = expected(model, tmp_path, tickets[0].future.result().parameters)
    assert difference(tickets[1].future.result().images[0].image, plain) > 2
    assert difference(runnable.txt2img(every[0]).images[0].image, plain) <= 2


def test_layers_are_looked_up_once_for_a_batch(
    start: Start, tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model has thousands of layers, and a step must not wait for Python to walk them."""
    write(tmp_path, "ink", tiny_model("sd1"))
    runnable = start("sd1", lora_dir=str(tmp_path))
    ticket = runnable.submit(wanted(("ink", 1.0)))  # reading the file walks them, too
    ticket.future.result(timeout=300)
    walks, unet = list[int](), base_of(runnable).unet
    walk = unet.named_modules

    def counted(*given: Any, **options: Any) -> Any:
        walks.append(1)
        return walk(*given, **options)

    monkeypatch.setattr(unet, "named_modules", counted)
    runnable.txt2img(wanted(("ink", 1.0), num_inference_steps=8))
    assert len(walks) == 1


def test_alphas_of_single_layers_are_found_as_peft_finds_them(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    write(tmp_path, "plain", tiny_model("sd1"))
    metadata = {
        "unet.lora_alpha": RANK,
        "unet.alpha_pattern": {"attn2.to_q": 2 * RANK, "down_blocks.*.proj_in": 3 * RANK},
        "text_encoder.lora_alpha": RANK,
        "text_encoder.alpha_pattern": {"text_model.encoder.layers.0.self_attn.q_proj": 4 * RANK},
    }
    save_file(
        load_file(tmp_path / "plain.safetensors"),
        tmp_path / "scaled.safetensors",
        {"lora_adapter_metadata": json.dumps(metadata)},
    )
    family = family_of(load(str(tiny_model("sd1")), dtype=torch.float32), Cpu(Settings()))
    plain, scaled = (
        read(name, tmp_path / f"{name}.safetensors", family).parts for name in ("plain", "scaled")
    )
    found = {
        f"{component}.{path}": round(float((scaled[component][path].up / factors.up).mean()), 4)
        for component, part in plain.items()
        for path, factors in part.items()
    }

    def expected(path: str) -> int:
        if path.endswith("attn2.to_q"):
            return 2
        if path.startswith("unet.down_blocks") and path.endswith("proj_in"):
            return 3
        return 4 if path.startswith("text") and path.endswith("layers.0.self_attn.q_proj") else 1

    assert found == {path: expected(path) for path in found}
    assert set(found.values()) == {1, 2, 3, 4}


def damaged(weights: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """LoRAs that cannot be used: a name that says why -> weights."""
    up = next(key for key in weights if key.endswith("lora_up.weight"))
    down, alpha = up.replace("lora_up", "lora_down"), up.replace("lora_up.weight", "alpha")
    value = weights[up]
    changes = {
        "not-a-number": {up: torch.full_like(value, float("nan"))},
        "infinite": {down: torch.full_like(weights[down], float("inf"))},
        "alpha-not-a-number": {alpha: torch.tensor(float("nan"))},
        "several-alphas": {alpha: torch.ones(3)},
        "scalar": {up: torch.tensor(1.0)},
        "no-rank": {up: value[:, :0], down: weights[down][:0]},
        "other-rank": {up: torch.ones(len(value), 5)},
        "other-size": {down: torch.ones(RANK, 7)},
    }
    lacking = {"no-up": {key: value for key, value in weights.items() if key != up}}
    return {**{name: {**weights, **change} for name, change in changes.items()}, **lacking}


def test_damaged_files_are_refused_by_name(
    start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    write(tmp_path, "good", tiny_model("sd1"), kohya=True)
    file = (tmp_path / "good.safetensors").read_bytes()
    weights = load_file(tmp_path / "good.safetensors")
    kinds = damaged(weights)
    for name, content in kinds.items():
        save_file(content, tmp_path / f"{name}.safetensors")
    for name, data in {"empty": b"", "header": file[:50], "cut": file[:-999]}.items():
        (tmp_path / f"{name}.safetensors").write_bytes(data)
    list_of_none = {"lora_adapter_metadata": "[]"}
    save_file(weights, tmp_path / "metadata.safetensors", list_of_none)
    runnable = start("sd1", lora_dir=str(tmp_path))
    for name in (*kinds, "empty", "header", "cut", "metadata"):
        with pytest.raises(InvalidInput, match=f"'{name}'") as caught:
            runnable.submit(wanted((name, 1.0)))
        assert caught.value.loc == ("loras",)
    assert runnable.txt2img(wanted(("good", 1.0))).images


def test_weights_of_eight_bits_are_read_in_thirty_two() -> None:
    """PyTorch multiplies none of eight bits on the CPU."""
    eight = torch.full((2, 3), 0.5).to(torch.float8_e4m3fn)
    assert torch.equal(lora_file._checked("x", eight), torch.full((2, 3), 0.5))
    assert lora_file._checked("x", torch.ones(2, 3).half()).dtype == torch.float16


def test_its_bytes_are_those_of_its_factors() -> None:
    small, large = (Factors(torch.ones(4, n), torch.ones(n, 4).half()) for n in (2, 8))
    lora = Lora("x", {"unet": {"a": small}, "text_encoder": {"a": large}})
    assert lora.nbytes == 2 * 4 * (4 + 2) + 8 * 4 * (4 + 2)


def test_what_is_not_there_or_does_not_fit_is_refused(
    start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    write(tmp_path, "one", tiny_model("sd1"))
    write(tmp_path, "large", tiny_model("sdxl"))
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    runnable = start("sd1", lora_dir=str(tmp_path))
    assert [each["name"] for each in runnable.listed("loras")] == ["broken", "large", "one"]
    for begin in (runnable.submit, runnable.plan):  # a plan looks for the file and reads none
        with pytest.raises(UnknownName, match="did you mean 'one'"):
            begin(wanted(("oen", 1.0)))
    for name in ("../one", str(tmp_path / "one")):
        with pytest.raises(UnknownName):
            runnable.submit(wanted((name, 1.0)))
    for name in ("large", "broken"):
        with pytest.raises(InvalidInput, match=name):
            runnable.submit(wanted((name, 1.0)))
    assert runnable.txt2img(wanted(("one", 1.0))).images
