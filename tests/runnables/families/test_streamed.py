"""Weights that stay in main memory: a module's device says nothing of where its outputs are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from runnables.accelerators.base import Accelerator
from runnables.assembly import family_of
from runnables.checkpoints.loading import load
from runnables.extensions.lora.extension import LoraText
from runnables.extensions.lora.file import read as read_lora
from runnables.extensions.skip_layers import SkipCall
from runnables.extensions.textual_inversion.extension import ConceptText
from runnables.extensions.textual_inversion.file import read as read_concept
from runnables.families.text.prompts import Text
from runnables.parameters import SkipLayerGuidance
from runnables.settings import Settings

CPU, META = torch.device("cpu"), torch.device("meta")
LONG = "a cat and a dog, " * 30


def stream(module: nn.Module) -> None:
    """Have each layer's weights on the device for its call alone, as diffusers' hooks do.

    The device is the CPU, and they lie on `meta` between calls: what is moved there is lost.
    """
    for layer in module.modules():
        kept = dict(layer._parameters)
        away = {
            name: weight if weight is None else nn.Parameter(weight.to(META), requires_grad=False)
            for name, weight in kept.items()
        }
        layer._parameters.update(away)
        layer.register_forward_pre_hook(partial(_before, kept))
        layer.register_forward_hook(partial(_after, away))


def _before(kept: dict[str, Any], layer: nn.Module, _inputs: Any) -> None:
    layer._parameters.update(kept)


def _after(away: dict[str, Any], layer: nn.Module, _inputs: Any, _output: Any) -> None:
    layer._parameters.update(away)


def family(folder: Path) -> Any:
    checkpoint = load(str(folder), dtype=torch.float32)
    return family_of(checkpoint, Accelerator(CPU, torch.float32, Settings()))


def lora(model: Any, folder: Path) -> LoraText:
    weights = {}
    for name, layer in model.checkpoint.text_encoder.named_modules():
        if name.endswith("q_proj"):
            out, into = layer.weight.shape
            weights[f"text_encoder.{name}.lora_A.weight"] = torch.ones(2, into)
            weights[f"text_encoder.{name}.lora_B.weight"] = torch.ones(out, 2)
    save_file(weights, folder / "one.safetensors")
    return LoraText(((read_lora("one", folder / "one.safetensors", model), 1.0),), model.device)


def concept(model: Any, folder: Path) -> ConceptText:
    widths = [encoder.model.config.hidden_size for encoder in model.encoders]
    names = ("clip_l", "clip_g")
    vectors = {name: torch.ones(2, width) for name, width in zip(names, widths, strict=True)}
    save_file(vectors, folder / "<toy>.safetensors")
    return ConceptText((read_concept("<toy>", folder / "<toy>.safetensors", model),))


def encoded(model: Any, folder: Path) -> dict[str, Any]:
    """Return the encodings of prompts of every kind."""
    toy = (concept(model, folder),)
    texts = {
        "plain": Text("a cat"),
        "long": Text(LONG),
        "compel": Text("a (cat)1.3 and a (dog)0.6", "compel"),
        "webui": Text("a (cat:1.3)", "webui"),
        "lora": Text("a cat", additions=(lora(model, folder),)),
        "embedding": Text("a <toy>", additions=toy),
        "weighted embedding": Text("a (<toy>)1.2", "compel", additions=toy),
    }
    with torch.inference_mode():
        return {name: model.encode([text])[0] for name, text in texts.items()}


def test_prompts_of_every_kind(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    whole, streamed = family(tiny_model("sdxl")), family(tiny_model("sdxl"))
    for encoder in streamed.checkpoint.text_encoders:
        stream(encoder)
        assert encoder.device == META
    expected, found = encoded(whole, tmp_path), encoded(streamed, tmp_path)
    for name, one in expected.items():
        torch.testing.assert_close(found[name].hidden_states, one.hidden_states, msg=name)
        torch.testing.assert_close(found[name].pooled, one.pooled, msg=name)


@pytest.mark.parametrize("kind", ["flux-dev", "sd3", "z-image", "flux-2-klein"])
def test_other_text_encoders(tiny_model: Callable[[str], Path], kind: str) -> None:
    streamed = family(tiny_model(kind))
    for encoder in streamed.checkpoint.text_encoders:
        stream(encoder)
    with torch.inference_mode():
        (found,) = streamed.encode([Text("a cat")])
        (expected,) = family(tiny_model(kind)).encode([Text("a cat")])
    torch.testing.assert_close(found.hidden_states, expected.hidden_states)


def test_skipped_layers_are_where_the_rows_are() -> None:
    transformer = nn.Module()
    transformer.transformer_blocks = nn.ModuleList(nn.Linear(1, 1, device=META) for _ in range(3))
    part = SkipLayerGuidance(layers=(1,), scale=2.0)
    call = SkipCall(transformer, CPU, [1], [0], [part])
    rows = torch.stack([torch.ones(4, 8, 8), torch.zeros(4, 8, 8)])
    assert torch.equal(call.guide(rows[:1], rows), torch.full((1, 4, 8, 8), 3.0))
