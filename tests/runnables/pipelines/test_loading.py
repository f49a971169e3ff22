"""Models load from folders and files, and damaged ones are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models import manifest
from runnables.errors import ConfigurationError
from runnables.pipelines.loading import load
from tests import single_file

TinyModel = Callable[[str], Path]


@pytest.fixture
def copy(tiny_model: TinyModel, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model("sd1"), tmp_path / "copy"))
    manifest.write(folder, source="test")
    return folder


def test_families(tiny_model: TinyModel) -> None:
    families = {
        kind: load(str(tiny_model(kind)), dtype=torch.float32).family
        for kind in ("sd1", "sd2", "sdxl", "sdxl-refiner", "lcm")
    }
    assert families == {
        "sd1": "stable-diffusion",
        "sd2": "stable-diffusion",
        "sdxl": "stable-diffusion-xl",
        "sdxl-refiner": "stable-diffusion-xl-refiner",
        "lcm": "stable-diffusion",
    }


def test_precision_and_profile(copy: Path) -> None:
    (copy / "profile.json").write_text('{"num_inference_steps": 7}')
    checkpoint = load(str(copy), dtype=torch.bfloat16)
    assert checkpoint.unet.dtype == torch.bfloat16
    assert checkpoint.profile.num_inference_steps == 7
    assert checkpoint.scheduler_config["_class_name"] == "PNDMScheduler"


def test_a_half_copied_model_is_named(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigurationError, match=r"unet/diffusion_pytorch_model.*copied in part"):
        load(str(copy), dtype=torch.float32)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "vae" / "config.json").unlink()
    with pytest.raises(ConfigurationError, match=r"vae/config\.json is missing"):
        load(str(copy), dtype=torch.float32)


def test_an_altered_file_is_named(copy: Path) -> None:
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ConfigurationError, match="SHA-256"):
        load(str(copy), dtype=torch.float32)


@pytest.mark.parametrize("source", ["/no/such/folder", "nonsense"])
def test_what_is_not_there(source: str) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        load(source, dtype=torch.float32)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no model_index\.json"):
        load(str(tmp_path), dtype=torch.float32)


def test_another_architecture_is_named(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    (copy / "manifest.json").unlink()
    with pytest.raises(ConfigurationError, match="FluxPipeline is not supported"):
        load(str(copy), dtype=torch.float32)


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="could not be fetched"):
        load("nobody/nothing@main", dtype=torch.float32)


def test_a_single_file_draws_what_its_folder_draws(tiny_model: TinyModel, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    folder = tiny_model("sd1")
    file = single_file.write(
        StableDiffusionPipeline.from_pretrained(folder), tmp_path / "tiny.safetensors"
    )
    from_file = load(str(file), dtype=torch.float32, config=str(folder))
    from_folder = load(str(folder), dtype=torch.float32)
    assert (from_file.name, from_file.family) == ("tiny", "stable-diffusion")
    for part in ("unet", "vae"):
        expected = getattr(from_folder, part).state_dict()
        loaded = getattr(from_file, part).state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    (expected_text,), (text,) = from_folder.text_encoders, from_file.text_encoders
    ids = torch.arange(77)[None] % 10
    assert torch.equal(text(ids)[0], expected_text(ids)[0])
    assert len(from_file.tokenizers) == 1


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        load(str(file), dtype=torch.float32, config=str(tmp_path))
