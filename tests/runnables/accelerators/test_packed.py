"""Packed convolutions give the numbers of plain ones, whatever the input's shape."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from runnables.accelerators.cpu.packed import PackedConv2d, PointwiseConv2d, pack


@pytest.mark.parametrize(
    ("stride", "padding", "groups", "bias"),
    [(1, 1, 1, True), (2, 1, 1, True), (2, 0, 1, False), (1, 1, 4, True)],
)
def test_equal_to_the_plain_convolution(stride: int, padding: int, groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 12, 3, stride=stride, padding=padding, groups=groups, bias=bias)
    packed = copy.deepcopy(plain)
    pack(packed)
    assert isinstance(packed, PackedConv2d)
    for shape in ((1, 8, 16, 16), (7, 8, 24, 8), (2, 8, 5, 9)):
        pixels = torch.randn(shape)
        for one in (pixels, pixels.to(memory_format=torch.channels_last)):
            assert torch.allclose(packed(one), plain(one), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_one_by_one_is_a_product_of_matrices(bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 12, 1, bias=bias)
    fast = copy.deepcopy(plain)
    pack(fast)
    assert isinstance(fast, PointwiseConv2d)
    for shape in ((1, 8, 16, 16), (7, 8, 24, 8)):
        pixels = torch.randn(shape)
        for one in (pixels, pixels.to(memory_format=torch.channels_last)):
            assert torch.allclose(fast(one), plain(one), atol=1e-5)
    for other in (nn.Conv2d(8, 8, 1, stride=2), nn.Conv2d(8, 8, 1, groups=2)):
        pack(other)
        assert isinstance(other, PackedConv2d)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_one_by_one_multiplies_all_pixels_at_once(memory_format: torch.memory_format) -> None:
    """Where each line is a product of its own, the weights are copied for each of them in bf16."""
    fast = nn.Sequential(nn.Conv2d(8, 12, 1))
    pack(fast)
    pixels = torch.randn(3, 8, 16, 16).to(memory_format=memory_format)
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as profiled:
        fast(pixels)
    called = {one.key: one.count for one in profiled.key_averages()}
    assert called["aten::addmm"] == 1
    assert "aten::bmm" not in called


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bf16 on this CPU"
)
def test_bf16_is_packed_too() -> None:
    plain = nn.Conv2d(8, 12, 3, padding=1).bfloat16()
    packed = copy.deepcopy(plain)
    pack(packed)
    pixels = torch.randn(2, 8, 16, 16).bfloat16()
    assert isinstance(packed, PackedConv2d)
    assert torch.allclose(packed(pixels), plain(pixels), atol=0.02)


def test_another_number_format_is_packed_anew() -> None:
    plain = nn.Conv2d(8, 12, 3, padding=1)
    packed = copy.deepcopy(plain)
    pack(packed)
    pixels = torch.randn(2, 8, 16, 16)
    packed(pixels)
    assert packed.weight.is_mkldnn
    assert not packed.to(torch.float64).weight.is_mkldnn
    packed.to(torch.float32)
    assert torch.allclose(packed(pixels), plain(pixels), atol=1e-5)
    assert packed.weight.is_mkldnn


def test_what_cannot_be_packed_stays() -> None:
    half = nn.Conv2d(8, 8, 3).half()
    mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
    named = nn.Conv2d(8, 8, 3, padding="same")
    model = nn.Sequential(half, mirrored, named)
    pack(model)
    assert [type(one) for one in model] == [nn.Conv2d] * 3
