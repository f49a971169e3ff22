"""8-bit weights: less memory, nearly the same images, and those that diffusers gets with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, TorchAoConfig
from safetensors.torch import load_file, save_file
from torch import nn
from torchao import quantization
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from runnables.checkpoints import components, loading, mapped
from runnables.checkpoints.quantization import CONFIGS, bytes_of, quantize
from runnables.errors import ConfigurationError
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import QUANTIZED, Settings
from tests.insides import base_of

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
DENOISER = {"sd1": "unet", "sd3": "transformer", "flux-dev": "transformer"}
SIZE = {"height": 64, "width": 64}


def image(runnable: StableDiffusionRunnable, **options: Any) -> np.ndarray:
    wanted = TextToImage(prompt="a cat", num_inference_steps=3, seed=3, **SIZE, **options)
    return np.asarray(runnable.txt2img(wanted).images[0].image).astype(int)


@pytest.mark.parametrize("kind", DENOISER)
def test_images_are_those_of_diffusers_with_such_weights(
    kind: str, start: Start, tiny_model: TinyModel
) -> None:
    folder, name = tiny_model(kind), DENOISER[kind]
    runnable, plain = start(kind, quantize=f"{name}:int8"), start(kind)
    assert base_of(runnable).checkpoint.nbytes < base_of(plain).checkpoint.nbytes
    assert not (image(runnable) == image(plain)).all()

    pipeline = DiffusionPipeline.from_pretrained(folder)
    config = TorchAoConfig(Int8WeightOnlyConfig())
    part = type(getattr(pipeline, name)).from_pretrained(
        folder / name, quantization_config=config, torch_dtype=torch.float32
    )
    pipeline.register_modules(**{name: part})
    generated = pipeline(
        prompt="a cat",
        num_inference_steps=3,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="np",
        guidance_scale=runnable.describe()["defaults"]["guidance_scale"],
        **SIZE,
    ).images[0]
    assert np.abs(image(runnable) - (generated * 255).round()).max() <= 2


def test_text_encoders_and_further_models_too(start: Start, tiny_model: TinyModel) -> None:
    further = f"sd1={tiny_model('sd1')}"
    runnable = start("sd3", quantize="text_encoder:int8,text_encoder_3:int8", models=further)
    assert np.abs(image(runnable) - image(start("sd3"))).mean() < 8
    assert runnable._pool is not None
    image(runnable, model="sd1")
    plain, further_one = base_of(start("sd1")).checkpoint, runnable._pool.loaded["sd1"]
    assert further_one.nbytes < plain.nbytes, "its text_encoder"


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_quarter_of_the_memory(kind: str) -> None:
    layer = torch.nn.Linear(256, 128, bias=False).requires_grad_(False)
    inputs, before = torch.randn(4, 256), bytes_of(layer.weight)
    expected = layer(inputs)
    quantize(layer, kind)
    assert 256 * 128 < bytes_of(layer.weight) < 0.26 * before, "8 bits, and scales"
    assert (layer(inputs) - expected).abs().max() < 0.1 * expected.abs().max()


def resident(path: Path) -> int:
    """Return the bytes of a file that are in this process's memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if "-" in name:
            inside = line.endswith(str(path))
        elif inside and name == "Rss:":
            found += 1024 * int(rest[0])
    return found


@pytest.mark.parametrize("kind", QUANTIZED)
def test_the_unquantised_weights_do_not_stay_in_memory(kind: str, tmp_path: Path) -> None:
    file, names = tmp_path / "weights.safetensors", ("a", "b", "c")
    save_file({name: torch.randn(1024, 1024) for name in names}, file)
    weights = load_file(file)
    module, whole = nn.ModuleDict(), nn.ModuleDict()
    for name in names[:2]:  # the third keeps the file mapped, as a convolution does
        for one in (module, whole):
            one[name] = nn.Linear(1024, 1024, bias=False)
            one[name].weight = nn.Parameter(weights[name], requires_grad=False)
    quantize_(whole, getattr(quantization, CONFIGS[kind])(set_inductor_config=False))
    assert resident(file) > 2 * 4 * 2**20
    expected = weights["a"].clone()

    quantize(module, kind)

    assert resident(file) < 2**20
    assert torch.equal(weights["a"], expected), "it is read again"
    for name in names[:2]:
        got, wanted = module[name].weight, whole[name].weight
        assert type(got) is type(wanted)
        assert torch.equal(got.dequantize(), wanted.dequantize())


def test_quantised_components_are_read_first(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def load_component(folder: Path, index: Any, name: str, *options: Any) -> Any:
        read.append(name)
        return components.load_component(folder, index, name, *options)

    monkeypatch.setattr(loading, "load_component", load_component)
    source = str(tiny_model("sd1"))
    plain = loading.load(source, dtype=torch.float32)
    assert read == list(plain.components)
    read.clear()
    quantised = loading.load(source, dtype=torch.float32, quantized={"vae": "int8"})
    assert read[0] == "vae" != next(iter(plain.components))
    assert list(quantised.components) == list(plain.components)


def test_memory_that_no_file_is_mapped_to_stays_as_it_is() -> None:
    weight = torch.ones(1024, 1024)
    mapped.give_back(weight, mapped.files())
    assert weight.all()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("unet:int9", "unet:int9 is not component:kind; kinds are int8, fp8"),
        ("unet", "unet: is not component:kind"),
        ("unet:int8,unet:fp8", "a component stands twice"),
    ],
)
def test_what_is_no_component_and_kind_stops_the_start(
    text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD_QUANTIZE", text)
    with pytest.raises(ConfigurationError, match=why) as refused:
        Settings.from_environment()
    assert "\n" not in refused.value.message and "SD_QUANTIZE" in refused.value.message


@pytest.mark.parametrize("name", ["transformer", "vae", "tokenizer"])
def test_a_component_that_the_model_has_not_stops_the_start(name: str, start: Start) -> None:
    with pytest.raises(ConfigurationError, match=f"SD_QUANTIZE names {name}; this model has"):
        start("sd1", quantize=f"{name}:int8")
