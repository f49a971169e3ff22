"""A folder's needed files are chosen, and weights files are checked for their length."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from runnables.checkpoints import layout

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "safety_checker": [None, None],
    "requires_safety_checker": False,
}
PLAIN = "unet/diffusion_pytorch_model.safetensors"
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"
BASE = ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"]


def needed(*weights: str, variant: str = "") -> set[str]:
    return set(layout.needed([*BASE, *weights], INDEX, variant)) - set(BASE)


def test_surplus_is_left_behind() -> None:
    surplus = ["v1-5-pruned.safetensors", "unet/model.onnx", "unet/x.non_ema.safetensors"]
    surplus += ["safety_checker/model.safetensors", "unet/deep/er.safetensors", "profile.json"]
    assert needed(PLAIN, "LICENSE", *surplus) == {PLAIN, "LICENSE"}


def test_a_variant_is_taken_where_it_is_requested_or_alone() -> None:
    assert needed(PLAIN, HALF) == {PLAIN}
    assert needed(PLAIN, HALF, variant="fp16") == {HALF}
    assert needed(PLAIN, variant="fp16") == {PLAIN}
    assert needed(HALF) == {HALF}


def test_shards_belong_together() -> None:
    shards = {f"unet/model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    halves = {f"unet/model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)}
    assert needed(*shards, *halves) == shards
    assert needed(*shards, *halves, variant="fp16") == halves


def test_what_is_missing_is_named() -> None:
    with pytest.raises(layout.Incomplete, match=r"unet/ has no \.safetensors"):
        needed("unet/diffusion_pytorch_model.bin")
    with pytest.raises(layout.Incomplete, match="no scheduler/"):
        layout.needed(["model_index.json", "unet/config.json", PLAIN], INDEX)


@given(keep=st.floats(0, 1, exclude_max=True))
def test_a_file_that_ends_early_is_reported(
    keep: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("weights") / "x.safetensors"
    save_file({"a": torch.ones(7, 3), "b": torch.zeros(2)}, path, metadata={"format": "pt"})
    layout.check_complete(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(layout.Incomplete, match=r"x\.safetensors"):
        layout.check_complete(path)


def test_what_is_no_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((4).to_bytes(8, "little") + b"[1]\n")
    with pytest.raises(layout.Incomplete, match="not a whole safetensors file"):
        layout.check_complete(path)
