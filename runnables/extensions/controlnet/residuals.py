"""ControlNet (arXiv:2302.05543), row by row: rows with different ControlNets share a UNet call.

Each ControlNet of a batch is run once, on the UNet rows that ask for it at this step. What it gives
is scaled row by row and added to the UNet's skip connections and middle; other rows get zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from runnables.families.unet import Residuals, UNetFamily

if TYPE_CHECKING:
    from runnables.families.base import Conditioning

#: what one adds to a UNet row's work: 0.35 of SD 1's arithmetic, 0.45 of SDXL's
COST = 0.4


@dataclass(frozen=True, eq=False)
class ControlNet:
    """A loaded diffusers ControlNetModel, on the model's device and in its dtype."""

    name: str
    model: Any
    nbytes: int

    @property
    def conditional_only(self) -> bool:
        """Trained on pooled conditions: diffusers keeps such ones from unconditional rows."""
        return bool(self.model.config.global_pool_conditions)


@dataclass(frozen=True, eq=False)
class Control:
    """One ControlNet of one request.

    Attributes:
        image: (3, H, W) in 0..1.
        weight: diffusers' controlnet_conditioning_scale.
        keep: by UNet call, whether it acts.
    """

    net: ControlNet
    image: Tensor
    weight: float
    keep: tuple[bool, ...]

    def acts(self, step: int) -> bool:
        """Whether it is run at this UNet call."""
        return self.weight > 0 and step < len(self.keep) and self.keep[step]


#: the ControlNets of one row
ControlSet = tuple[Control, ...]


class Run(NamedTuple):
    """One ControlNet's rows of a batch.

    Attributes:
        rows: (n,) their numbers among the UNet's U; None: these are all, in order.
        images: (n, 3, H, W).
        weights: (n, 1, 1, 1) in the model's dtype.
        conditioning: stacked, n rows.
    """

    net: ControlNet
    rows: Tensor | None
    images: Tensor
    weights: Tensor
    conditioning: Conditioning


def kept(start: float, end: float, steps: int) -> tuple[bool, ...]:
    """At which of so many UNet calls a ControlNet acts: the rule of diffusers' pipelines."""
    return tuple(not (i / steps < start or (i + 1) / steps > end) for i in range(steps))


def calls(sets: Sequence[ControlSet], guided: int, conditioning: Conditioning) -> list[Run]:
    """The ControlNet calls of a batch.

    Args:
        sets: of its R rows, those of the `guided` rows first.
        conditioning: of the U UNet rows: R conditional, `guided` unconditional, then padding.
    """
    wanted: dict[ControlNet, list[tuple[int, Control]]] = {}
    for index, controls in enumerate([*sets, *sets[:guided]]):
        for control in controls:
            if index < len(sets) or not control.net.conditional_only:
                wanted.setdefault(control.net, []).append((index, control))
    return [_call(net, pairs, conditioning) for net, pairs in wanted.items()]


def _call(net: ControlNet, pairs: list[tuple[int, Control]], conditioning: Conditioning) -> Run:
    text = conditioning.hidden_states
    indices = [index for index, _ in pairs]
    rows = torch.tensor(indices, device=text.device)
    images = torch.stack([control.image for _, control in pairs])
    weights = torch.tensor([control.weight for _, control in pairs])
    return Run(
        net,
        None if indices == list(range(len(text))) else rows,
        images,
        weights.view(-1, 1, 1, 1).to(images),
        conditioning.select(rows),
    )


def residuals(
    family: UNetFamily, calls: Sequence[Run], sample: Tensor, timesteps: Tensor
) -> Residuals | None:
    """Run a batch's ControlNets. None where it has none.

    Args:
        sample: (U, latent_channels, h, w), scaled as the sampler asks.
        timesteps: (U,) float32, a timestep a row.
    """
    total: Residuals | None = None
    for call in calls:
        given = _run(family, call, sample, timesteps)
        total = given if total is None else _sum(total, given)
    return total


def _run(family: UNetFamily, call: Run, sample: Tensor, timesteps: Tensor) -> Residuals:
    rows, total = call.rows, len(sample)
    if rows is not None:
        sample, timesteps = sample[rows], timesteps[rows]
    down, mid = call.net.model(
        sample.to(family.dtype),
        timesteps,
        encoder_hidden_states=call.conditioning.hidden_states,
        controlnet_cond=call.images,
        conditioning_scale=call.weights,
        added_cond_kwargs=family.added_conditions(call.conditioning),
        return_dict=False,
    )
    return Residuals(tuple(_spread(one, rows, total) for one in down), _spread(mid, rows, total))


def _spread(residual: Tensor, rows: Tensor | None, total: int) -> Tensor:
    """(n, ...) of some rows -> (total, ...), zero for the others."""
    if rows is None:
        return residual
    return residual.new_zeros(total, *residual.shape[1:]).index_add_(0, rows, residual)


def _sum(one: Residuals, other: Residuals) -> Residuals:
    pairs = zip(one.down, other.down, strict=True)
    return Residuals(tuple(a + b for a, b in pairs), one.mid + other.mid)
