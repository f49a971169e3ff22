"""Convolutions of 3x3 in fp32 take a quarter of the multiplications, by Winograd's F(4x4, 3x3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308), have the
algorithm and its three matrices. A tile of 4x4 outputs needs 6x6 inputs. Between the transforms of
both, each of the 36 places is a product of matrices: all tiles' channels times that place's
weights. The numbers differ from a plain convolution's in the last digits of a float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor, nn

from runnables.accelerators.cpu.packed import PackedConv2d

TILE = 4  # outputs of a tile, by height and by width; it needs two inputs more
LEAST = 64  # channels, in and out, from where on the products outweigh the transforms
TILES = 16  # of a call from where on it is faster than a plain one
PART = 1 << 21  # numbers of the tiles that are transformed at once: 8 MiB, which caches hold

INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


class WinogradConv2d(PackedConv2d):
    """A convolution that has its weights twice: packed for small calls, transformed for others."""

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[2:]
        packed = self.weight.is_mkldnn and input.dtype is torch.float32
        if not packed or height % TILE or width % TILE:
            return super().forward(input)
        transformed = (self._buffers[name] for name in ("kernels", "to_input", "to_output"))
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
        convolve: Callable[..., Tensor] = _traceable() if tracing else _convolve
        return convolve(input, self.weight, self.bias, *transformed, TILES, PART)

    def _packed(self, weight: Tensor, shape: list[int]) -> nn.Parameter:
        made, channels = weight.shape[:2]
        one = torch.tensor(KERNEL, dtype=torch.float64)
        kernels = torch.einsum("ia,jb,ocab->ijco", one, one, weight.detach().double())
        # not by attribute, as in PackedConv2d.forward
        self._buffers["kernels"] = kernels.reshape(36, channels, made).float().contiguous()
        self._buffers["to_input"] = _on_both_sides(INPUT)
        self._buffers["to_output"] = _on_both_sides(OUTPUT)
        return super()._packed(weight, shape)


def transform(module: nn.Module, budget: float) -> None:
    """Make packed convolutions of 3x3 in float32 WinogradConv2d, the smallest ones first.

    Those with fewest weights see the largest images, so that each byte saves most there.

    Args:
        budget: bytes of all transformed weights, which are four times the plain ones.
    """
    found = [conv for conv in module.modules() if type(conv) is PackedConv2d and _fits(conv)]
    for conv in sorted(found, key=_nbytes):
        budget -= _nbytes(conv)
        if budget < 0:
            return
        conv.__class__ = WinogradConv2d


def _nbytes(conv: nn.Conv2d) -> int:
    return 36 * 4 * conv.in_channels * conv.out_channels


def _fits(conv: nn.Conv2d) -> bool:
    plain = conv.kernel_size == (3, 3) and conv.stride == conv.padding == conv.dilation == (1, 1)
    large = min(conv.in_channels, conv.out_channels) >= LEAST
    usual = conv.groups == 1 and conv.bias is not None and conv.weight.dtype == torch.float32
    return plain and large and usual


def _on_both_sides(matrix: Iterable[Iterable[float]]) -> Tensor:
    """Return what transforms both sides of a tile, whose numbers lie in one column."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).float()


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    kernels: Tensor,
    to_input: Tensor,
    to_output: Tensor,
    least: int,
    most: int,
) -> Tensor:
    """Return the convolution, by the algorithm where the call has at least so many tiles.

    Args:
        input: (rows, channels, height, width), both sides multiples of 4.
        least: tiles from where on the algorithm is taken.
        most: numbers of the tiles that are transformed at once.
    """
    rows, channels, height, width = input.shape
    down, across, made = height // 4, width // 4, kernels.size(2)
    if rows * down * across < least:
        none: list[int | float | complex | None] = []
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            input, weight, bias, [1, 1], [1, 1], [1, 1], 1, "none", none, ""
        )
    padded = input.new_empty([rows, height + 2, width + 2, channels])
    padded[:, 1:-1, 1:-1] = input.permute(0, 2, 3, 1)
    for border in (padded[:, 0], padded[:, -1], padded[:, :, 0], padded[:, :, -1]):
        border.zero_()
    row, line, place = padded.stride(0), padded.stride(1), padded.stride(2)
    size = [6, 6, rows, down, across, channels]
    tiles = padded.as_strided(size, [line, place, row, 4 * line, 4 * place, 1])
    output = input.new_empty([rows, down, 4, across, 4, made])
    lines = max(1, most // (36 * across * channels))
    some, lines = max(1, lines // down), min(lines, down)
    for i in range(0, rows, some):
        for j in range(0, down, lines):
            part = tiles[:, :, i : i + some, j : j + lines].reshape(36, -1)
            transformed = torch.mm(to_input, part).view(36, -1, channels)
            products = torch.bmm(transformed, kernels).view(36, -1)
            into = output[i : i + some, j : j + lines]
            there = torch.mm(to_output, products).view(4, 4, -1, into.size(1), across, made)
            torch.add(there.permute(2, 3, 0, 4, 1, 5), bias, out=into)
    return output.view(rows, height, width, made).permute(0, 3, 1, 2)


@cache
def _traceable() -> Callable[..., Tensor]:
    """Return the convolution as TorchScript: a trace has to choose by each call's rows."""
    return torch.jit.script(_convolve)
