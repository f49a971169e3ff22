"""ControlNets (arXiv:2302.05543) act row by row: rows with different ones share a call.

Each ControlNet of a batch is run once, on the rows that ask for it at this step. Its output
is scaled row by row and added inside the denoiser; other rows get zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from runnables.families.base import Conditioning, Size

if TYPE_CHECKING:
    from PIL.Image import Image

#: what one adds to a denoiser row's work: 0.35 of SD 1's arithmetic, 0.45 of SDXL's
COST = 0.4


class ControlNet(Protocol):
    """This is a loaded ControlNet, on the model's device and in its dtype.

    Attributes:
        nbytes: of its weights.
        conditional_only: whether it is kept from unconditional rows.
    """

    name: str
    model: Any

    @property
    def nbytes(self) -> int: ...
    @property
    def conditional_only(self) -> bool: ...

    def prepare(self, picture: Image, size: Size) -> Tensor:
        """Return a control image of (height, width) pixels as the ControlNet takes it."""
        ...

    def run(
        self,
        sample: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        images: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return what it adds inside the denoiser, each (n, ...) of n rows.

        Args:
            sample: (n, latent_channels, h, w), scaled as the sampler asks.
            timesteps: (n,) float32.
            images: (n, ...) as `prepare` makes them.
            weights: (n,) in the model's dtype.
        """
        ...

    def packed(self, residuals: Sequence[Tensor]) -> Any:
        """Return the sum of what several ControlNets add, as the family's `denoise` takes it."""
        ...


@dataclass(frozen=True, eq=False)
class Control:
    """A control is one ControlNet of one request.

    Attributes:
        image: as the ControlNet takes it.
        weight: diffusers' controlnet_conditioning_scale.
        keep: by denoiser call, whether it acts.
    """

    net: ControlNet
    image: Tensor
    weight: float
    keep: tuple[bool, ...]

    def acts(self, step: int) -> bool:
        """Return whether it is run at this call."""
        return self.weight > 0 and step < len(self.keep) and self.keep[step]


#: the ControlNets of one row
ControlSet = tuple[Control, ...]


class Run(NamedTuple):
    """A run has one ControlNet's rows of a batch.

    Attributes:
        rows: (n,) their numbers among the denoiser's U; None: these are all, in order.
        images: (n, ...).
        weights: (n,) in the model's dtype.
        conditioning: stacked, n rows.
    """

    net: ControlNet
    rows: Tensor | None
    images: Tensor
    weights: Tensor
    conditioning: Conditioning


def kept(start: float, end: float, steps: int) -> tuple[bool, ...]:
    """Return, for each call, whether a ControlNet acts: the rule of diffusers' pipelines."""
    return tuple(not (i / steps < start or (i + 1) / steps > end) for i in range(steps))


def calls(sets: Sequence[ControlSet], guided: int, conditioning: Conditioning) -> list[Run]:
    """Return the ControlNet calls of a batch.

    Args:
        sets: of its R rows, those of the `guided` rows first.
        conditioning: of the U denoiser rows: R conditional, `guided` unconditional, then padding.
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
        weights.to(images),
        conditioning.select(rows),
    )


def residuals(runs: Sequence[Run], sample: Tensor, timesteps: Tensor) -> Any:
    """Run a batch's ControlNets; return None where it has none.

    Args:
        sample: (U, latent_channels, h, w), scaled as the sampler asks.
        timesteps: (U,) float32, one timestep per row.
    """
    total: tuple[Tensor, ...] = ()
    for run in runs:
        added = _run(run, sample, timesteps)
        total = tuple(a + b for a, b in zip(total, added, strict=True)) if total else added
    return runs[0].net.packed(total) if runs else None


def _run(run: Run, sample: Tensor, timesteps: Tensor) -> tuple[Tensor, ...]:
    rows, total = run.rows, len(sample)
    if rows is not None:
        sample, timesteps = sample[rows], timesteps[rows]
    added = run.net.run(sample, timesteps, run.conditioning, run.images, run.weights)
    return tuple(_spread(one, rows, total) for one in added)


def _spread(residual: Tensor, rows: Tensor | None, total: int) -> Tensor:
    """Spread (n, ...) of some rows to (total, ...), zero for the others."""
    if rows is None:
        return residual
    return residual.new_zeros(total, *residual.shape[1:]).index_add_(0, rows, residual)
