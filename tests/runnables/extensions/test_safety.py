"""The safety checker reports, the operator's policy decides, and no image is silently black."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings

ASK = TextToImage(prompt="x", num_inference_steps=2, seed=1)


@pytest.fixture(scope="module")
def strict_model(
    tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the tiny model with a real, tiny safety checker that objects to every image."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    folder = tmp_path_factory.mktemp("strict") / "model"
    shutil.copytree(tiny_model("sd1"), folder)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(-2.0)  # every cosine is above this threshold
    checker.save_pretrained(folder / "safety_checker")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**size).save_pretrained(folder / "feature_extractor")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def generated(model: Path, policy: str, **changes: object) -> tuple[np.ndarray, str]:
    settings = Settings(model=str(model), threads=1, safety=policy)  # type: ignore[arg-type]
    runnable = StableDiffusionRunnable(settings)
    runnable.start()
    try:
        (image,) = runnable.txt2img(ASK.model_copy(update=changes)).images
        return np.asarray(image.image), image.finish_reason
    finally:
        runnable.close()


def test_policies(strict_model: Path) -> None:
    plain, reason = generated(strict_model, "off")
    assert reason == "success"
    flagged, reason = generated(strict_model, "flag")
    assert reason == "content_filtered"
    assert (flagged == plain).all()
    blurred, reason = generated(strict_model, "blur")
    assert reason == "content_filtered"
    assert blurred.std() < plain.std()
    blocked, reason = generated(strict_model, "block")
    assert reason == "content_filtered"
    assert (blocked == 128).all(), "grey and reported, never black and silent"


def test_a_request_can_decline_only_where_nothing_is_enforced(strict_model: Path) -> None:
    assert generated(strict_model, "flag", safety_check=False)[1] == "success"
    assert generated(strict_model, "block", safety_check=False)[1] == "content_filtered"
