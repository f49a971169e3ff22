"""Convolutions of 3x3 in fp32 take a quarter of the multiplications, by Winograd's F(4x4, 3x3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308), have the
algorithm and its three matrices. A tile of 4x4 outputs needs 6x6 inputs. Between the transforms of
both, each of the 36 places is a product of matrices: all tiles' channels times that place's
weights. The numbers differ from a plain convolution's in the last digits of a float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from runnables.accelerators.cpu.by_size import Norm
from runnables.accelerators.cpu.norms import normed_images
from runnables.accelerators.cpu.packed import PackedConv2d, convolve_by_size
from runnables.accelerators.cpu.scripted import scripted

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
        if not (self.weight.is_mkldnn and input.dtype is torch.float32):
            return super().forward(input)
        return _convolve(input, self.weight, self.bias, *self._transformed, TILES, PART)

    def _by_size(
        self, input: Tensor, counts: Tensor, sizes: list[int], norm: Norm, added: Tensor | None
    ) -> Tensor:
        if input.dtype is not torch.float32:
            return super()._by_size(input, counts, sizes, norm, added)
        own = self.weight, self.bias, *self._transformed
        return _convolve_by_size(input, counts, sizes, *own, *norm, added, TILES, PART)

    @property
    def _transformed(self) -> list[Any]:
        return [self._buffers[name] for name in ("kernels", "to_input", "to_output")]

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


@scripted
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
    """Return the convolution of (rows, channels, height, width), as `_convolve_by_size`."""
    rows, channels, height, width = input.shape
    if rows * _tiles_of(height, width) < least:
        none: list[int | float | complex | None] = []
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            input, weight, bias, [1, 1], [1, 1], [1, 1], 1, "none", none, ""
        )
    positions = input.permute(0, 2, 3, 1).reshape(-1, channels)
    own, biases = [height, width], bias.view(1, -1)
    made = _by_size(
        positions, [rows], own, biases, kernels, to_input, to_output, 0, None, None, 0.0, most
    )
    return made.view(rows, height, width, -1).permute(0, 3, 1, 2)


@scripted
def _convolve_by_size(
    input: Tensor,
    counts: Tensor,
    sizes: list[int],
    weight: Tensor,
    bias: Tensor,
    kernels: Tensor,
    to_input: Tensor,
    to_output: Tensor,
    norm_groups: int,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    norm_eps: float,
    added: Tensor | None,
    least: int,
    most: int,
) -> Tensor:
    """Return what `PackedConv2d.by_size` does, by the algorithm where there are `least` tiles.

    Args:
        most: numbers of the tiles that are transformed at once.
    """
    rows: list[int] = counts.tolist()
    if _tiles_of_all(rows, sizes) < least:
        one = [1, 1]
        return convolve_by_size(
            input,
            counts,
            sizes,
            weight,
            bias,
            one,
            one,
            one,
            1,
            norm_groups,
            norm_weight,
            norm_bias,
            norm_eps,
            added,
        )
    biases = bias.view(1, -1)
    if added is not None:
        biases = biases + added
    return _by_size(
        input,
        rows,
        sizes,
        biases,
        kernels,
        to_input,
        to_output,
        norm_groups,
        norm_weight,
        norm_bias,
        norm_eps,
        most,
    )


def _by_size(
    input: Tensor,
    counts: list[int],
    sizes: list[int],
    biases: Tensor,
    kernels: Tensor,
    to_input: Tensor,
    to_output: Tensor,
    norm_groups: int,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    norm_eps: float,
    most: int,
) -> Tensor:
    """Return the convolution by the algorithm, (positions, made).

    The tiles of all sizes are multiplied together, unless they are too many for that.

    Args:
        biases: (rows, made), or (1, made) for all.
    """
    channels, made = input.size(1), kernels.size(2)
    output = input.new_empty([input.size(0), made])
    total = _tiles_of_all(counts, sizes)
    together = 36 * total * channels <= most
    every = input.new_empty([6, 6, total if together else 0, channels])
    parts: list[tuple[Tensor, Tensor]] = []  # biases and output of each size
    position = row = tile = 0
    for index, count in enumerate(counts):
        height, width = sizes[2 * index], sizes[2 * index + 1]
        last, end = row + count, position + count * height * width
        if count:
            images = input[position:end].view(count, height, width, channels)
            into = output[position:end].view(count, height, width, made)
            bias = biases if biases.size(0) == 1 else biases[row:last]
            tiles = _tiles(images, norm_groups, norm_weight, norm_bias, norm_eps)
            if together:
                own = count * _tiles_of(height, width)
                every[:, :, tile : tile + own].view(tiles.shape).copy_(tiles)
                parts.append((bias, into))
                tile += own
            else:
                _convolve_parts(tiles, bias, kernels, to_input, to_output, into, most)
        position, row = end, last
    if together:
        products = _multiplied(every.view(36, -1), kernels, to_input, to_output)
        tile = 0
        for bias, into in parts:
            own = into.size(0) * _tiles_of(into.size(1), into.size(2))
            _place(products[:, tile : tile + own], bias, into)
            tile += own
    return output


def _tiles_of(height: int, width: int) -> int:
    """Return how many tiles an image has, with those that reach beyond its borders."""
    return ((height + 3) // 4) * ((width + 3) // 4)


def _tiles_of_all(counts: list[int], sizes: list[int]) -> int:
    """Return the tiles of so many rows of each size."""
    total = 0
    for index, count in enumerate(counts):
        total += count * _tiles_of(sizes[2 * index], sizes[2 * index + 1])
    return total


def _tiles(
    images: Tensor,
    norm_groups: int,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    norm_eps: float,
) -> Tensor:
    """Return what the tiles of (rows, height, width, channels) read, as a view of a padded copy.

    Returns:
        (6, 6, rows, down, across, channels)
    """
    rows, height, width, channels = images.shape
    down, across = (height + 3) // 4, (width + 3) // 4
    padded = images.new_empty([rows, 4 * down + 2, 4 * across + 2, channels])
    inside = padded[:, 1 : height + 1, 1 : width + 1]
    if norm_groups:
        first = images.permute(0, 3, 1, 2)
        normed = normed_images(first, norm_groups, norm_weight, norm_bias, norm_eps)
        torch.ops.aten.silu(normed, out=inside.permute(0, 3, 1, 2))
    else:
        inside.copy_(images)
    for outside in (
        padded[:, :: height + 1],  # the first line, and the one behind the last
        padded[:, :, :: width + 1],
        padded[:, height + 2 :],
        padded[:, :, width + 2 :],
    ):
        if outside.numel():
            outside.zero_()
    row, line, place = padded.stride(0), padded.stride(1), padded.stride(2)
    size = [6, 6, rows, down, across, channels]
    return padded.as_strided(size, [line, place, row, 4 * line, 4 * place, 1])


def _convolve_parts(
    tiles: Tensor,
    biases: Tensor,
    kernels: Tensor,
    to_input: Tensor,
    to_output: Tensor,
    into: Tensor,
    most: int,
) -> None:
    """Write the convolution to (rows, height, width, made), by parts that caches hold."""
    rows, down, across, channels = tiles.shape[2:]
    lines = max(1, most // (36 * across * channels))
    some, lines = max(1, lines // down), min(lines, down)
    for i in range(0, rows, some):
        own = biases if biases.size(0) == 1 else biases[i : i + some]
        for j in range(0, down, lines):
            part = tiles[:, :, i : i + some, j : j + lines].reshape(36, -1)
            products = _multiplied(part, kernels, to_input, to_output)
            _place(products, own, into[i : i + some, 4 * j : 4 * (j + lines)])


def _multiplied(tiles: Tensor, kernels: Tensor, to_input: Tensor, to_output: Tensor) -> Tensor:
    """Return the (16, tiles, made) outputs of tiles whose inputs are (36, tiles x channels)."""
    transformed = torch.mm(to_input, tiles).view(36, -1, kernels.size(1))
    products = torch.bmm(transformed, kernels).view(36, -1)
    return torch.mm(to_output, products).view(16, -1, kernels.size(2))


def _place(outputs: Tensor, biases: Tensor, into: Tensor) -> None:
    """Write the outputs of tiles to where they belong in (rows, height, width, made)."""
    rows, height, width, made = into.shape
    down, across = (height + 3) // 4, (width + 3) // 4
    there = outputs.view(4, 4, rows, down, across, made).permute(2, 3, 0, 4, 1, 5)
    exact = height == 4 * down and width == 4 * across  # no tile reaches beyond the image
    whole = into if exact else into.new_empty([rows, 4 * down, 4 * across, made])
    added = biases.view(-1, 1, 1, 1, 1, made)
    torch.add(there, added, out=whole.view(rows, down, 4, across, 4, made))
    if not exact:
        into.copy_(whole[:, :height, :width])
