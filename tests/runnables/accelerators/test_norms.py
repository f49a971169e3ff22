"""A group norm that brings its input into contiguous order computes the same numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from runnables.accelerators.cpu.norms import ContiguousNorm, contiguous_norms

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(16, 16), (32, 32)])
def test_equal_to_the_plain_norm(dtype: torch.dtype, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = nn.GroupNorm(4, 8).to(dtype)
    nn.init.normal_(plain.weight)
    changed = copy.deepcopy(plain)
    contiguous_norms(changed)
    pixels = torch.randn(3, 8, *size).to(dtype).to(memory_format=torch.channels_last)
    assert torch.allclose(changed(pixels), plain(pixels), atol=1e-5 if dtype.itemsize == 4 else 0.1)


@pytest.mark.parametrize(
    ("dtype", "size", "contiguous"),
    [
        (torch.bfloat16, (16, 16), True),
        (torch.bfloat16, (32, 32), False),
        (torch.float32, (16, 16), False),
    ],
)
def test_small_images_in_bf16_are_copied(
    dtype: torch.dtype, size: tuple[int, int], contiguous: bool
) -> None:
    norm = nn.Sequential(nn.GroupNorm(4, 8)).to(dtype)
    contiguous_norms(norm)
    assert isinstance(norm[0], ContiguousNorm)
    pixels = torch.randn(3, 8, *size).to(dtype).to(memory_format=torch.channels_last)
    assert norm(pixels).is_contiguous() == contiguous
