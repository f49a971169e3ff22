"""FLUX's single files and GGUF files: the transformer is theirs, all else the folder's.

diffusers converts files of the published width alone, so that one block of each kind has that here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    GGUFQuantizationConfig,
)
from safetensors.torch import save_file

from runnables.checkpoints.loading import load
from runnables.errors import ConfigurationError
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests import single_file
from tests.insides import base_of
from tests.long import long

WIDE = {"attention_head_dim": 128, "num_attention_heads": 24, "axes_dims_rope": (16, 56, 56)}


@pytest.fixture(scope="module")
def wide(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a transformer of the published width, and small parts around it."""
    folder = tmp_path_factory.mktemp("wide")
    config = {**FluxTransformer2DModel.load_config(tiny_model("flux-dev") / "transformer"), **WIDE}
    torch.manual_seed(3)
    transformer = FluxTransformer2DModel.from_config(config)
    pipeline = FluxPipeline.from_pretrained(tiny_model("flux-dev"), transformer=transformer)
    pipeline.save_pretrained(folder)
    (folder / "profile.json").write_text('{"height": 64, "width": 64}')
    return folder


def image(runnable: StableDiffusionRunnable) -> Any:
    wanted = TextToImage(prompt="a cat", seed=3, num_inference_steps=2, height=64, width=64)
    return np.asarray(runnable.txt2img(wanted).images[0].image).astype(int)


def reference(folder: Path, transformer: Any) -> Any:
    return generated(FluxPipeline.from_pretrained(folder, transformer=transformer), 3.5)


def generated(pipeline: Any, guidance_scale: float) -> Any:
    pixels = pipeline(
        prompt="a cat",
        num_inference_steps=2,
        generator=torch.Generator("cpu").manual_seed(3),
        guidance_scale=guidance_scale,
        height=64,
        width=64,
        output_type="np",
    ).images[0]
    return (pixels * 255).round()


@pytest.mark.parametrize("kind", ["flux-schnell", "sd3"])
def test_a_gguf_file_with_diffusers_names_equals_diffusers(
    kind: str,
    tiny_model: Callable[[str], Path],
    tmp_path: Path,
    start: Callable[..., StableDiffusionRunnable],
) -> None:
    folder, path = tiny_model(kind), tmp_path / "mine.gguf"
    pipeline = DiffusionPipeline.from_pretrained(folder)
    own = pipeline.transformer
    write_gguf(own.state_dict(), path)
    config = GGUFQuantizationConfig(compute_dtype=torch.float32)
    pipeline.transformer = type(own).from_single_file(
        str(path),
        config=str(folder),
        subfolder="transformer",
        quantization_config=config,
        torch_dtype=torch.float32,
    )
    runnable = start(kind, model=str(path), checkpoint_config=str(folder))
    scale = runnable.describe()["defaults"]["guidance_scale"]
    expected = generated(pipeline, scale)
    assert np.abs(image(runnable) - expected).max() <= 2
    sizes = base_of(runnable).checkpoint.sizes
    assert sizes["transformer"] < 0.6 * sum(w.numel() * 4 for w in own.parameters())
    assert not (image(start(kind)) == expected).all(), "8 bits change the image"


@long
@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_a_file_equals_diffusers(
    kind: str, wide: Path, tmp_path: Path, start: Callable[..., StableDiffusionRunnable]
) -> None:
    transformer = FluxTransformer2DModel.from_pretrained(wide / "transformer")
    weights = single_file.flux(transformer)
    path = tmp_path / f"mine.{kind}"
    if kind == "gguf":
        write_gguf(weights, path)
        config = GGUFQuantizationConfig(compute_dtype=torch.float32)
        transformer = FluxTransformer2DModel.from_single_file(
            str(path),
            config=str(wide),
            subfolder="transformer",
            quantization_config=config,
            torch_dtype=torch.float32,
        )
    else:
        save_file({f"model.diffusion_model.{k}": v.contiguous() for k, v in weights.items()}, path)
    expected = reference(wide, transformer)
    whole = sum(weight.numel() for weight in weights.values())
    del transformer, weights
    runnable = start("flux-dev", model=str(path), checkpoint_config=str(wide))
    assert np.abs(image(runnable) - expected).max() <= 2
    checkpoint = base_of(runnable).checkpoint
    assert checkpoint.name == "mine"
    share = checkpoint.sizes["transformer"] / whole
    assert share == 4 if kind == "safetensors" else share < 1.2, "bytes per weight"
    runnable.close()


def write_gguf(weights: dict[str, torch.Tensor], path: Path) -> None:
    """8 bits for matrices, as llama.cpp's tools write them."""
    writer = gguf.GGUFWriter(path, "flux")
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, value in weights.items():
        data = value.float().numpy()
        if data.ndim == 2 and data.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_file_without_its_folder_says_what_to_do(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    transformer = FluxTransformer2DModel.from_pretrained(tiny_model("flux-dev") / "transformer")
    path = tmp_path / "mine.safetensors"
    save_file({k: v.contiguous() for k, v in single_file.flux(transformer).items()}, path)
    with pytest.raises(ConfigurationError, match=r"transformer alone: import flux\.1-dev first"):
        load(str(path), dtype=torch.float32)


def test_a_damaged_gguf_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ConfigurationError, match=r"mine\.gguf cannot be loaded"):
        load(str(path), dtype=torch.float32)


def test_a_gguf_file_of_another_family_says_so(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "mine.gguf"
    write_gguf({"something.weight": torch.randn(32, 32)}, path)
    with pytest.raises(ConfigurationError, match="those with a transformer are read"):
        load(str(path), dtype=torch.float32)
