"""This module stores the weights of convolutions in oneDNN's own layout.

PyTorch brings a convolution's weights into oneDNN's layout anew at every call; for the small
batches of a UNet's steps that is a fifth of the time. Here it is done once. The operator is the one
that torch.compile's frozen graphs use.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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


def pack(module: nn.Module) -> None:
    """Have every plain float32 convolution in `module` packed; none where oneDNN is missing."""
    if not torch.backends.mkldnn.is_available():
        return
    for conv in module.modules():
        if type(conv) is nn.Conv2d and _is_plain(conv):
            conv.__class__ = PackedConv2d


def _is_plain(conv: nn.Conv2d) -> bool:
    padded_with_zeros = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return padded_with_zeros and conv.weight.dtype == torch.float32
