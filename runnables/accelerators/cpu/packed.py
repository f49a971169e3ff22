"""This module stores the weights of convolutions in oneDNN's own layout, but for those of 1x1.

PyTorch brings a convolution's weights into oneDNN's layout anew at every call; for the small
batches of a UNet's steps that is a fifth of the time. Here it is done once. The operator is the one
that torch.compile's frozen graphs use.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class PackedConv2d(nn.Conv2d):
    """A packed Conv2d computes the same numbers, but its `weight` can no longer be read.

    Its first input, at the warm-up, decides the layout: one that is made for another size is right,
    but up to 80 times slower (192 channels at 4x4, packed for 16x16).
    """

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight
        if weight.device.type != "cpu":
            return super().forward(input)
        if not weight.is_mkldnn:
            # not by attribute: while another thread loads a model, Accelerate moves such to "meta"
            self._parameters["weight"] = self._packed(weight, list(input.shape))
        arguments = (
            input,
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
        )
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            return _traceable()(*arguments)
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(*arguments, "none", [], "")
        return output

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


@cache
def _traceable() -> Callable[..., Tensor]:
    """Return the operator as `torch.jit.trace` takes it, which cannot type an empty list."""

    def convolve(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        padding: list[int],
        stride: list[int],
        dilation: list[int],
        groups: int,
    ) -> Tensor:
        none: list[int | float | complex | None] = []
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            input, weight, bias, padding, stride, dilation, groups, "none", none, ""
        )

    return torch.jit.script(convolve)


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
