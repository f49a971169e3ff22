"""Winograd's convolutions give what plain ones do, for calls of any size."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from runnables.accelerators.cpu import winograd
from runnables.accelerators.cpu.device import Cpu
from runnables.accelerators.cpu.packed import pack
from runnables.accelerators.cpu.winograd import TILES, WinogradConv2d, transform
from runnables.assembly import family_of
from runnables.checkpoints.loading import load
from runnables.settings import EMBEDDED_MODEL, Settings

LAST = torch.channels_last


def both(channels: int = 64, made: int = 96, **options: Any) -> tuple[nn.Module, nn.Module]:
    """A packed convolution, and the same one after `transform`."""
    plain = nn.Sequential(nn.Conv2d(channels, made, **{"kernel_size": 3, "padding": 1, **options}))
    other = copy.deepcopy(plain)
    pack(plain)
    pack(other)
    transform(other, math.inf)
    return plain, other


@pytest.mark.parametrize(
    ("rows", "height", "width"),
    [
        (1, 16, 16),
        (2, 8, 24),
        (5, 12, 16),
        (16, 4, 4),
        (3, 16, 12),
        (1, 64, 64),
        (16, 4, 8),
        (4, 6, 16),
        (4, 16, 6),
        (3, 13, 15),
        (16, 2, 3),
    ],
)
@pytest.mark.parametrize("order", [LAST, torch.contiguous_format])
@pytest.mark.parametrize("part", [1, 100_000, winograd.PART])
@torch.inference_mode()
def test_equal_to_a_plain_one(
    rows: int,
    height: int,
    width: int,
    order: torch.memory_format,
    part: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As whole or in parts, of images in either order."""
    monkeypatch.setattr(winograd, "PART", part)
    plain, other = both()
    assert rows * math.ceil(height / 4) * math.ceil(width / 4) >= TILES
    for _ in range(2):  # the first call packs
        sample = torch.randn(rows, 64, height, width).contiguous(memory_format=order)
        expected, found = plain(sample), other(sample)
        assert found.is_contiguous(memory_format=LAST) == expected.is_contiguous(memory_format=LAST)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert not torch.equal(found, expected), "it was a plain one"


@torch.inference_mode()
def test_without_a_trace_nothing_is_scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """TorchScript's optimizer would take a tenth of a second of each layer's first calls."""
    monkeypatch.delattr(torch.jit, "script")
    plain, other = both()
    sample = torch.randn(4, 64, 16, 16).contiguous(memory_format=LAST)
    for _ in range(2):
        torch.testing.assert_close(other(sample), plain(sample), rtol=0, atol=1e-4)


@torch.inference_mode()
def test_small_calls_are_plain() -> None:
    plain, other = both()
    for _ in range(2):
        sample = torch.randn(1, 64, 8, 8).contiguous(memory_format=LAST)
        assert torch.equal(plain(sample), other(sample))


@pytest.mark.parametrize("counts", [(3, 2, 4), (0, 1, 9), (5, 0, 0), (0, 0, 1)])
@pytest.mark.parametrize("part", [1, 20_000, winograd.PART])
@pytest.mark.parametrize("norm", [None, nn.GroupNorm(8, 64)])
@torch.inference_mode()
def test_rows_of_several_sizes(
    counts: tuple[int, ...],
    part: int,
    norm: nn.GroupNorm | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each size as a plain convolution of its own, with what is added to each row."""
    monkeypatch.setattr(winograd, "PART", part)
    plain, other = both()
    sizes = [(8, 8), (6, 8), (3, 4)]
    images = [torch.randn(count, 64, *size) for count, size in zip(counts, sizes, strict=True)]
    added = torch.randn(sum(counts), 96)
    expected, row = [], 0
    for one in images:
        if not len(one):
            continue
        normed = nn.functional.silu(norm(one)) if norm else one
        made = plain(normed) + added[row : row + len(one), :, None, None]
        expected.append(made.permute(0, 2, 3, 1).reshape(-1, 96))
        row += len(one)
    given = torch.cat([one.permute(0, 2, 3, 1).reshape(-1, 64) for one in images])
    flat = [side for size in sizes for side in size]
    for conv in (plain[0], other[0]):
        found = conv.by_size(given, torch.tensor(counts), flat, norm, added)  # type: ignore[operator]
        torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-4)


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bf16 on this CPU"
)
@torch.inference_mode()
def test_another_number_format_is_plain() -> None:
    plain, other = both()
    sample = torch.randn(4, 64, 16, 16).contiguous(memory_format=LAST)
    other(sample)
    plain, other, sample = plain.bfloat16(), other.bfloat16(), sample.bfloat16()
    assert torch.equal(plain(sample), other(sample))


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 32},
        {"made": 32},
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": 1, "padding": 0},
        {"stride": 2},
        {"padding": 0},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"bias": False},
        {"dtype": torch.bfloat16},
    ],
)
def test_what_is_left_alone(options: dict[str, Any]) -> None:
    _, (conv,) = both(**options)  # type: ignore[misc]
    assert type(conv) is not WinogradConv2d


def test_the_smallest_come_first_within_the_budget() -> None:
    small, large = (36 * 4 * 64 * made for made in (64, 96))
    for budget, count in ((small - 1, 0), (small, 1), (small + large - 1, 1), (small + large, 2)):
        model = nn.Sequential(*(nn.Conv2d(64, made, 3, padding=1) for made in (96, 64)))
        pack(model)
        transform(model, budget)
        kinds = [type(conv) is WinogradConv2d for conv in model]
        assert kinds == [count > 1, count > 0]


@pytest.mark.parametrize(("compile", "there"), [("off", True), ("regional", False)])
def test_the_embedded_model_has_them(compile: Any, there: bool) -> None:
    accelerator = Cpu(Settings(compile=compile))
    family: Any = family_of(load(str(Path(EMBEDDED_MODEL)), dtype=torch.float32), accelerator)
    accelerator.compile_blocks = lambda family: None  # type: ignore[method-assign]
    accelerator.prepare(family)
    found = sum(type(one) is WinogradConv2d for one in family.unet.modules())
    assert found == (24 if there else 0)
    assert not any(type(one) is WinogradConv2d for one in family.vae.modules())
