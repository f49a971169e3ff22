"""Rows of different sizes share a UNet call: each lies in the upper left corner of one canvas.

Calls in which LoRAs act need it, and UNets that `accelerators/cpu/positions.py` does not know.

What lies outside a row is zero wherever the row could see it, as a convolution pads. Norms take
their statistics inside, and self-attention leaves the rest out. So a row's output is what it would
be alone, at the price of the canvas' unused positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Size = tuple[int, int]
#: the blocks in which norms, convolutions and attention are where `Canvases` expects them
BLOCKS = {
    "DownBlock2D",
    "CrossAttnDownBlock2D",
    "UNetMidBlock2DCrossAttn",
    "CrossAttnUpBlock2D",
    "UpBlock2D",
}
HIDDEN = -10000.0  # diffusers' own bias of attention for what is masked


@dataclass(frozen=True, eq=False)
class Level:
    """A level is the canvas as one depth of the UNet sees it.

    Attributes:
        mask: (U, 1, h, w), 1 inside of a row.
        bias: (U, 1, h * w), added to the scores of self-attention.
        smaller: the rows of each size (height, width) at this depth that does not fill the canvas.
    """

    mask: Tensor
    bias: Tensor
    smaller: Sequence[tuple[Size, Tensor]]


class Canvas:
    """A canvas is as large as the largest of its rows, along each side.

    Attributes:
        sizes: of the rows, in latents.
        size: of the canvas.

    Args:
        sizes: (height, width) of the latents of U denoiser rows, multiples of `multiple`.
        multiple: what `multiple` returns for the UNet.
        device, dtype: of the denoiser's call.
    """

    def __init__(
        self,
        sizes: Sequence[Size],
        multiple: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.sizes = tuple(sizes)
        self.size = largest(sizes)
        self._device, self._dtype = device, dtype
        factors = [2**depth for depth in range(multiple.bit_length())]
        self._factors = {(self.size[0] // one, self.size[1] // one): one for one in factors}
        self._levels: dict[Size, Level] = {}

    def level(self, height: int, width: int) -> Level:
        """Return the canvas at the depth where it has this height and width."""
        size = height, width
        if size not in self._levels:
            factor = self._factors[size]
            inside = [(row[0] // factor, row[1] // factor) for row in self.sizes]
            self._levels[size] = _level(size, inside, self._device, self._dtype)
        return self._levels[size]

    def level_of(self, positions: int) -> Level:
        """Return the canvas at the depth where it has so many positions."""
        return next(self.level(*size) for size in self._factors if size[0] * size[1] == positions)


def _level(
    size: Size,
    inside: Sequence[Size],
    device: torch.device,
    dtype: torch.dtype,
) -> Level:
    mask = torch.zeros(len(inside), 1, *size)
    rows: dict[Size, list[int]] = {}
    for index, (height, width) in enumerate(inside):
        mask[index, :, :height, :width] = 1
        if (height, width) != size:
            rows.setdefault((height, width), []).append(index)
    smaller = [(one, torch.tensor(of, device=device)) for one, of in rows.items()]
    mask = mask.to(device, dtype)
    return Level(mask, (1 - mask.flatten(2)) * HIDDEN, smaller)


def largest(sizes: Sequence[Size]) -> Size:
    """Return the size that holds all of these."""
    return max(height for height, _ in sizes), max(width for _, width in sizes)


class Canvases:
    """This object lets a UNet2DConditionModel take canvases; without one the UNet stays as it is.

    Attributes:
        current: the canvas of the call under way.
    """

    def __init__(self, unet: nn.Module) -> None:
        self.current: Canvas | None = None
        for name, module in unet.named_modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_hook(self._by_size)
            elif type(module).__name__ in ("Downsample2D", "Upsample2D"):
                module.register_forward_pre_hook(self._inside)
            elif name.endswith(".attn1"):
                module.register_forward_pre_hook(self._among_its_own, with_kwargs=True)

    def _inside(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Make what is outside zero for a convolution that follows no norm."""
        if self.current is None:
            return None
        sample, *rest = inputs
        return sample * self.current.level(*sample.shape[2:]).mask, *rest

    def _by_size(
        self, module: nn.GroupNorm, inputs: tuple[Tensor, ...], output: Tensor
    ) -> Tensor | None:
        """Norm smaller rows with the statistics of their inside, and make zero what is outside."""
        if self.current is None:
            return None
        sample = inputs[0]
        level = self.current.level(*sample.shape[2:])
        for (height, width), rows in level.smaller:
            inside = module.forward(sample[rows, :, :height, :width])
            around = (0, sample.shape[3] - width, 0, sample.shape[2] - height)
            output.index_copy_(0, rows, functional.pad(inside, around))
        return output

    def _among_its_own(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Let the positions of a row attend to each other alone."""
        if self.current is None:
            return None
        level = self.current.level_of(inputs[0].shape[1])
        return inputs, {**named, "attention_mask": level.bias}


def multiple(unet: Any) -> int:
    """Return what latents' sides must be multiples of for a canvas; 0: this UNet takes none."""
    config = unet.config
    blocks = [*config.down_block_types, *config.up_block_types, config.mid_block_type]
    if not BLOCKS.issuperset(blocks) or config.resnet_time_scale_shift != "default":
        return 0
    return int(2 ** (len(config.down_block_types) - 1))
