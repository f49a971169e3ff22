"""This module stores the weights of convolutions in oneDNN's own layout, but for those of 1x1.

PyTorch brings a convolution's weights into oneDNN's layout anew at every call; for the small
batches of a UNet's steps that is a fifth of the time. Here it is done once. The operator is the one
that torch.compile's frozen graphs use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from runnables.accelerators.cpu.by_size import Norm, of
from runnables.accelerators.cpu.norms import normed_images
from runnables.accelerators.cpu.scripted import scripted


class PackedConv2d(nn.Conv2d):
    """A packed Conv2d computes the same numbers, but its `weight` can no longer be read.

    Its first input, at the warm-up, decides the layout: one that is made for another size is right,
    but up to 80 times slower (192 channels at 4x4, packed for 16x16).
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.weight.device.type != "cpu":
            return super().forward(input)
        if not self.weight.is_mkldnn:
            self.pack(input.shape)
        return _convolve(
            input,
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
        )

    def by_size(
        self,
        input: Tensor,
        counts: Tensor,
        sizes: list[int],
        norm: nn.GroupNorm | None = None,
        added: Tensor | None = None,
    ) -> Tensor:
        """Return the convolution of rows of several sizes, (positions, channels); see `by_size`.

        Args:
            norm: normalizes the input, which SiLU activates then.
            added: (rows, channels), to every position of a row.
        """
        if not self.weight.is_mkldnn:
            self.pack([int(counts.sum()), self.in_channels, *sizes[:2]])
        return self._by_size(input, counts, sizes, of(norm), added)

    def _by_size(
        self, input: Tensor, counts: Tensor, sizes: list[int], norm: Norm, added: Tensor | None
    ) -> Tensor:
        own = self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        return _convolve_by_size(input, counts, sizes, *own, *norm, added)

    def pack(self, shape: Sequence[int]) -> None:
        """Pack the weights for inputs of this shape, (rows, channels, height, width)."""
        # not by attribute: while another thread loads a model, Accelerate moves such to "meta"
        self._parameters["weight"] = self._packed(self.weight, list(shape))

    def _apply(self, *args: Any, **named: Any) -> PackedConv2d:
        """Unpack before another device or number format; the next call packs anew."""
        weight = self.weight
        if weight.is_mkldnn:
            self._parameters["weight"] = nn.Parameter(weight.to_dense(), requires_grad=False)
        return super()._apply(*args, **named)  # type: ignore[no-any-return]

    def _packed(self, weight: Tensor, shape: list[int]) -> nn.Parameter:
        packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
            weight.detach().to_mkldnn(),
            list(self.padding),
            list(self.stride),
            list(self.dilation),
            self.groups,
            shape,  # type: ignore[call-arg]  # missing in the stub
        )
        return nn.Parameter(packed, requires_grad=False)


class PointwiseConv2d(nn.Conv2d):
    """A convolution of 1x1 is a product of matrices, which is faster than a packed one.

    And packed by one number of rows it may be 30 times slower for another (192 channels in bf16).
    """

    def forward(self, input: Tensor) -> Tensor:
        # contiguous, or PyTorch multiplies each line of each image by a copy of the weights
        pixels = input.permute(0, 2, 3, 1).contiguous()
        return functional.linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


@scripted
def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: list[int],
    stride: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Call the operator, whose empty list a trace cannot type."""
    none: list[int | float | complex | None] = []
    return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
        input, weight, bias, padding, stride, dilation, groups, "none", none, ""
    )


def convolve_by_size(
    input: Tensor,
    counts: Tensor,
    sizes: list[int],
    weight: Tensor,
    bias: Tensor | None,
    padding: list[int],
    stride: list[int],
    dilation: list[int],
    groups: int,
    norm_groups: int,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    norm_eps: float,
    added: Tensor | None,
) -> Tensor:
    """Return what `by_size` does; each size's rows are a call of their own."""
    rows: list[int] = counts.tolist()
    none: list[int | float | complex | None] = []
    made: list[Tensor] = []
    position = row = 0
    for index, count in enumerate(rows):
        height, width = sizes[2 * index], sizes[2 * index + 1]
        last, end = row + count, position + count * height * width
        if count:
            images = input[position:end].view(count, height, width, -1).permute(0, 3, 1, 2)
            if norm_groups:
                images = normed_images(images, norm_groups, norm_weight, norm_bias, norm_eps)
                images = functional.silu(images, inplace=True)
            output = torch.ops.mkldnn._convolution_pointwise(
                images, weight, bias, padding, stride, dilation, groups, "none", none, ""
            )
            if added is not None:
                output = output.add_(added[row:last, :, None, None])
            made.append(output.permute(0, 2, 3, 1).reshape(-1, output.size(1)))
        position, row = end, last
    return made[0] if len(made) == 1 else torch.cat(made)


_convolve_by_size = scripted(convolve_by_size)


def pack(module: nn.Module) -> None:
    """Make every plain convolution in `module` fast, of the number formats oneDNN has here."""
    formats = _formats()
    for conv in module.modules():
        if type(conv) is nn.Conv2d and conv.weight.dtype in formats and _is_plain(conv):
            conv.__class__ = PointwiseConv2d if _is_pointwise(conv) else PackedConv2d


def _formats() -> set[torch.dtype]:
    if not torch.backends.mkldnn.is_available():
        return set()
    bf16: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return {torch.float32, torch.bfloat16} if bf16 else {torch.float32}


def _is_plain(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _is_pointwise(conv: nn.Conv2d) -> bool:
    ones = conv.kernel_size == conv.stride == (1, 1)
    return ones and conv.padding == (0, 0) and conv.groups == 1
