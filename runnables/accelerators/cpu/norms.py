"""This module speeds up group norms in bf16.

Packed convolutions return their output in channels-last order. PyTorch's group norm for that order
computes small images in bf16 one number at a time, which took a third of a UNet's step. In
contiguous order it is eight times faster, the copy included.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def normed_images(
    images: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Return the group norm of (rows, channels, height, width), small ones in bf16 as contiguous.

    From 1024 positions of an image on PyTorch takes another kernel, which is fast.
    """
    if images.dtype == torch.bfloat16 and images[0, 0].numel() < 1024:
        images = images.contiguous()
    return torch.group_norm(images, groups, weight, bias, eps)


class ContiguousNorm(nn.GroupNorm):
    """This GroupNorm brings small images in bf16 into contiguous order first."""

    def forward(self, input: Tensor) -> Tensor:
        return normed_images(input, self.num_groups, self.weight, self.bias, self.eps)


def contiguous_norms(module: nn.Module) -> None:
    """Make every GroupNorm in `module` a ContiguousNorm."""
    for norm in module.modules():
        if type(norm) is nn.GroupNorm:
            norm.__class__ = ContiguousNorm
