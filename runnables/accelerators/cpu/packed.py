"""This module stores the weights of convolutions in oneDNN's own layout.

PyTorch brings a convolution's weights into oneDNN's layout anew at every call; for the small
batches of a UNet's steps that is a fifth of the time. Here it is done once. The operator is the one
that torch.compile's frozen graphs use.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PackedConv2d(nn.Conv2d):
    """A packed Conv2d computes the same numbers, but its `weight` can no longer be read."""

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            input,
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            "none",
            [],
            "",
        )
        return output


def pack(module: nn.Module, size: tuple[int, int]) -> None:
    """Pack every plain float32 convolution in `module`, in place; none where oneDNN is missing.

    Args:
        size: (height, width) that most inputs will have; the layout is chosen for it, and right
            for every other.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for conv in module.modules():
        if type(conv) is nn.Conv2d and _is_plain(conv):
            _pack(conv, size)


def _is_plain(conv: nn.Conv2d) -> bool:
    padded_with_zeros = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return padded_with_zeros and conv.weight.dtype == torch.float32


def _pack(conv: nn.Conv2d, size: tuple[int, int]) -> None:
    packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
        conv.weight.detach().to_mkldnn(),
        list(conv.padding),
        list(conv.stride),
        list(conv.dilation),
        conv.groups,
        [2, conv.in_channels, *size],  # type: ignore[call-arg]  # missing in the stub
    )
    conv.weight = nn.Parameter(packed, requires_grad=False)
    conv.__class__ = PackedConv2d
