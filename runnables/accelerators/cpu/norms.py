"""This module speeds up group norms in bf16.

Packed convolutions return their output in channels-last order. PyTorch's group norm for that order
computes small images in bf16 one number at a time, which took a third of a UNet's step. In
contiguous order it is eight times faster, the copy included.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALL = 1024  # positions of an image from where on PyTorch takes another kernel, which is fast


class ContiguousNorm(nn.GroupNorm):
    """This GroupNorm brings small images in bf16 into contiguous order first."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dtype is torch.bfloat16 and input[0, 0].numel() < SMALL:
            input = input.contiguous()
        return super().forward(input)


def contiguous_norms(module: nn.Module) -> None:
    """Make every GroupNorm in `module` a ContiguousNorm."""
    for norm in module.modules():
        if type(norm) is nn.GroupNorm:
            norm.__class__ = ContiguousNorm
