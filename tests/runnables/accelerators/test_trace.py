"""A traced denoiser call gives the same bits as the UNet's own, for any number of rows."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runnables.accelerators.cpu.device import Cpu
from runnables.accelerators.cpu.trace import BUDGET, USES, Trace
from runnables.accelerators.graphs import Graphs
from runnables.assembly import family_of
from runnables.checkpoints.loading import load
from runnables.families.base import Conditioning
from runnables.families.unet import UNetFamily
from runnables.settings import Settings

TinyModel = Callable[[str], Path]
SQUARE = (8, 8)


def family(folder: Path, precision: Any = "fp32") -> UNetFamily:
    accelerator = Cpu(Settings(precision=precision))
    made: Any = family_of(load(str(folder), dtype=accelerator.dtype), accelerator)
    accelerator.prepare(made)
    return made  # type: ignore[no-any-return]


def arguments(
    model: UNetFamily, size: tuple[int, int], tokens: Sequence[int]
) -> tuple[Tensor, Tensor, Conditioning]:
    rows, config = len(tokens), model.unet.config
    pooled = time_ids = None
    if model.pooled_text:
        pooled = torch.randn(model.encoders[-1].model.config.projection_dim).to(model.dtype)
        time_ids = torch.tensor([64.0, 64, 0, 0, 64, 64])
    texts = [torch.randn(count, config.cross_attention_dim).to(model.dtype) for count in tokens]
    conditioning = Conditioning.stack([Conditioning(one, pooled, time_ids) for one in texts])
    sample = torch.randn(rows, config.in_channels, *size)
    return sample, torch.linspace(1, 999, rows), conditioning


def all_graphs() -> Graphs:
    return Graphs(Trace, BUDGET, any_rows=True)


CALLS = {
    "one row first": [[77], [77] * 7],
    "many rows first": [[77] * 5, [77], [77] * 2],
    "prompt lengths": [[77, 154, 77], [154, 77], [77, 77, 154, 154]],
}


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
@torch.inference_mode()
def test_one_trace_serves_any_number_of_rows(
    kind: str, calls: list[list[int]], tiny_model: TinyModel
) -> None:
    model, graphs = family(tiny_model(kind)), all_graphs()
    for tokens in calls:
        given = arguments(model, SQUARE, tokens)
        assert torch.equal(graphs.denoise(model, *given), model.denoise(*given))
    assert len(graphs) == 1


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bf16 on this CPU"
)
@torch.inference_mode()
def test_in_bf16(tiny_model: TinyModel) -> None:
    model, graphs = family(tiny_model("sd1"), "bf16"), all_graphs()
    for rows in (2, 5, 1):
        given = arguments(model, SQUARE, [77] * rows)
        assert torch.equal(graphs.denoise(model, *given), model.denoise(*given))
    assert len(graphs) == 1


@torch.inference_mode()
def test_a_traced_call_runs_no_module(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graphs = family(tiny_model("sd1")), all_graphs()
    given = arguments(model, SQUARE, [77])
    expected = graphs.denoise(model, *given)

    def forward(*_: Any, **__: Any) -> None:
        raise AssertionError("the UNet's own code was run")

    monkeypatch.setattr(model.unet, "forward", forward)
    assert torch.equal(graphs.denoise(model, *given), expected)


@torch.inference_mode()
def test_a_model_that_is_gone_leaves_no_trace(tiny_model: TinyModel) -> None:
    model, graphs = family(tiny_model("sd1")), all_graphs()
    given = arguments(model, SQUARE, [77])
    graphs.denoise(model, *given)
    weight = weakref.ref(model.unet.time_embedding.linear_1.weight)
    gone = weakref.ref(model)
    assert len(graphs) == 1
    del model, given
    gc.collect()
    assert gone() is None
    assert weight() is None
    assert len(graphs) == 0


@torch.inference_mode()
def test_only_calls_that_come_again_and_again_are_traced(tiny_model: TinyModel) -> None:
    model, accelerator = family(tiny_model("sd1")), Cpu(Settings())
    given = arguments(model, SQUARE, [77])
    for calls in range(1, USES + 1):
        accelerator.denoise(model, *given)
        assert accelerator._traces is not None
        assert len(accelerator._traces) == (calls == USES)
    assert Cpu(Settings(compile="regional"))._traces is None
