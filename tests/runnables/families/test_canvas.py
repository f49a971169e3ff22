"""A row's output on a canvas is what it would be alone, also beside rows of other sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runnables.accelerators.cpu.device import Cpu
from runnables.accelerators.cpu.packed import pack
from runnables.assembly import family_of
from runnables.checkpoints.loading import load
from runnables.families import canvas
from runnables.families.base import Conditioning
from runnables.families.canvas import Canvas
from runnables.families.unet import UNetFamily
from runnables.settings import Settings

TinyModel = Callable[[str], Path]
SIZES = [(8, 8), (12, 8), (8, 12), (4, 4), (12, 12), (8, 8)]
TOKENS = [77, 154, 77, 77, 231, 154]


def family(folder: Path) -> UNetFamily:
    made: Any = family_of(load(str(folder), dtype=torch.float32), Cpu(Settings()))
    pack(made.unet)
    return made  # type: ignore[no-any-return]


def conditioning(model: UNetFamily, tokens: int, generator: torch.Generator) -> Conditioning:
    width = model.unet.config.cross_attention_dim
    hidden = torch.randn(tokens, width, generator=generator)
    if not model.pooled_text:
        return Conditioning(hidden)
    pooled = torch.randn(model.encoders[-1].model.config.projection_dim, generator=generator)
    return Conditioning(hidden, pooled, torch.tensor([64.0, 64, 0, 0, 64, 64]))


@torch.inference_mode()
def outputs(
    model: UNetFamily, sizes: Sequence[tuple[int, int]], tokens: Sequence[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """Every row's output alone, and on a canvas with the others."""
    generator = torch.Generator().manual_seed(0)
    channels = model.unet.config.in_channels
    samples = [torch.randn(channels, *size, generator=generator) for size in sizes]
    rows = [conditioning(model, count, generator) for count in tokens]
    timesteps = torch.linspace(1, 999, len(sizes))
    alone = [
        model.denoise(sample[None], timesteps[i : i + 1], Conditioning.stack([rows[i]]))[0]
        for i, sample in enumerate(samples)
    ]
    multiple = model.traits.canvas_multiple
    shared = Canvas(sizes, multiple, torch.device("cpu"), torch.float32)
    stacked = torch.zeros(len(sizes), channels, *shared.size)
    for i, (height, width) in enumerate(sizes):
        stacked[i, :, :height, :width] = samples[i]
    together = Conditioning.stack(rows)
    together = Conditioning(
        together.hidden_states,
        together.pooled,
        together.time_ids,
        mask=together.mask,
        canvas=shared,
    )
    output = model.denoise(stacked, timesteps, together)
    return alone, [output[i, :, :h, :w] for i, (h, w) in enumerate(sizes)]


def largest_difference(alone: Sequence[Tensor], together: Sequence[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_a_row_is_what_it_is_alone(kind: str, tiny_model: TinyModel) -> None:
    model = family(tiny_model(kind))
    assert largest_difference(*outputs(model, SIZES, TOKENS)) < 1e-4


def test_a_canvas_may_be_wide_or_tall(tiny_model: TinyModel) -> None:
    model = family(tiny_model("sd1"))
    for sizes in ([(8, 12), (8, 8)], [(8, 8), (12, 8)]):
        assert largest_difference(*outputs(model, sizes, [77, 77])) < 1e-4


def test_without_a_canvas_the_model_stays_as_it_is(tiny_model: TinyModel) -> None:
    model, plain = family(tiny_model("sd1")), family(tiny_model("sd1"))
    outputs(model, SIZES, TOKENS)
    alone, _ = outputs(model, SIZES[:1], TOKENS[:1])
    expected, _ = outputs(plain, SIZES[:1], TOKENS[:1])
    assert torch.equal(alone[0], expected[0])


@pytest.mark.parametrize("part", ["norms", "convolutions", "attention", "text"])
def test_each_part_is_needed(
    part: str, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above notices where one of the parts is missing."""
    if part == "norms":
        monkeypatch.setattr(canvas.Canvases, "_by_size", lambda *_: None)
    elif part == "convolutions":
        monkeypatch.setattr(canvas.Canvases, "_inside", lambda *_: None)
    elif part == "attention":
        monkeypatch.setattr(canvas.Canvases, "_among_its_own", lambda *_: None)
    else:
        stack = Conditioning.stack

        def unmasked(rows: Sequence[Conditioning]) -> Conditioning:
            made = stack(rows)
            return Conditioning(made.hidden_states, made.pooled, made.time_ids)

        monkeypatch.setattr(Conditioning, "stack", unmasked)
    assert largest_difference(*outputs(family(tiny_model("sd1")), SIZES, TOKENS)) > 1e-3


def test_a_unet_of_other_blocks_takes_no_canvas(tiny_model: TinyModel) -> None:
    unet = family(tiny_model("sd1")).unet
    assert canvas.multiple(unet) == 2 ** (len(unet.config.down_block_types) - 1)
    unet.register_to_config(resnet_time_scale_shift="scale_shift")
    assert canvas.multiple(unet) == 0
    unet.register_to_config(resnet_time_scale_shift="default", mid_block_type="UNetMidBlock2D")
    assert canvas.multiple(unet) == 0
