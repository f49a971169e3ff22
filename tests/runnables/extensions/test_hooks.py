"""A call that raises leaves no hook behind, whatever acts on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from runnables.errors import GenerationFailed
from runnables.extensions.skip_layers import SkipCall
from runnables.parameters import LoraUse, SkipLayerGuidance, TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.insides import base_of, untraced
from tests.runnables.extensions import test_lora, test_textual_inversion

ACTING: dict[str, dict[str, Any]] = {
    "LoRA": {"loras": (LoraUse(name="ink", weight=0.8),)},
    "embedding": {"embeddings": ("<toy>",), "prompt": "a <toy>"},
    "DeepCache": {"deep_cache_interval": 2},
}


@pytest.fixture(scope="module")
def runnable(
    start: Callable[..., StableDiffusionRunnable],
    tiny_model: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> StableDiffusionRunnable:
    loras, embeddings = tmp_path_factory.mktemp("loras"), tmp_path_factory.mktemp("embeddings")
    test_lora.write(loras, "ink", tiny_model("sd1"))
    test_textual_inversion.write(embeddings, "sd1")
    folders = {"lora_dir": str(loras), "embeddings_dir": str(embeddings)}
    return start("sd1", **folders, prompt_cache=0)


def hooks(modules: Sequence[nn.Module]) -> int:
    every = [part for module in modules for part in module.modules()]
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in every)


@pytest.mark.parametrize("acting", ACTING)
@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_a_model_that_raises(
    runnable: StableDiffusionRunnable,
    monkeypatch: pytest.MonkeyPatch,
    acting: str,
    component: str,
) -> None:
    """It raises in its last layer, when all hooks have been set and most have run."""
    untraced(monkeypatch)
    base = base_of(runnable)
    models = [base.unet, *(encoder.model for encoder in base.encoders)]
    last = base.unet.conv_out if component == "unet" else list(models[1].modules())[-1]
    seen: list[int] = []

    def broken(*_: object) -> None:
        seen.append(hooks(models))
        raise RuntimeError("broken layer")

    plain = TextToImage(prompt="a cat", num_inference_steps=3, guidance_scale=5.0, seed=1)
    expected = np.asarray(runnable.txt2img(plain).images[0].image)
    with monkeypatch.context() as patch:
        patch.setattr(last, "forward", broken)
        with pytest.raises(GenerationFailed):
            runnable.txt2img(plain.model_copy(update=ACTING[acting]))
    assert seen and hooks(models) == 0
    within_unet = acting != "embedding"
    within_encoder = acting != "DeepCache"
    assert (max(seen) > 0) == (within_unet if component == "unet" else within_encoder)
    assert (np.asarray(runnable.txt2img(plain).images[0].image) == expected).all()


def test_a_transformer_that_raises_while_layers_are_skipped() -> None:
    transformer = nn.Module()
    transformer.transformer_blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(3))
    part = SkipLayerGuidance(layers=(1,), scale=1.0)
    call = SkipCall(transformer, torch.device("cpu"), [2], [0], [part])

    def broken(*_: object) -> torch.Tensor:
        assert hooks([transformer]) == 1
        raise RuntimeError("broken layer")

    with pytest.raises(RuntimeError, match="broken layer"):
        call.around(broken)(torch.zeros(1), torch.zeros(1))
    assert hooks([transformer]) == 0
