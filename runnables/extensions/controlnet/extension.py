"""ControlNets are loaded by name, and each is run on the rows that ask for it."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from runnables.extensions.base import Call, Denoise, Pass, RowState, Stacked
from runnables.extensions.controlnet import folder
from runnables.extensions.controlnet.base import ControlNet, Run
from runnables.extensions.controlnet.residuals import (
    COST,
    Control,
    ControlSet,
    calls,
    kept,
    residuals,
)
from runnables.extensions.from_folder import FromFolder
from runnables.parameters import Parameters


class ControlNets(FromFolder[ControlNet]):
    """This extension serves the ControlNets of the operator's folder to one model."""

    name = "controlnets"
    setting = "controlnet_dir"
    pattern = "*/config.json"

    def read(self, name: str, path: Path) -> ControlNet:
        return folder.load(name, path.parent, self.family, self.adopt)

    def cost(self, parameters: Parameters) -> float:
        return COST * len(parameters.controlnets)

    def beside(self, parameters: Parameters) -> float:
        """Return the memory of the largest one, because ControlNets are run one after the other."""
        return COST

    def load(self, parameters: Parameters) -> tuple[ControlNet, ...]:
        return tuple(self._library.get(use.name) for use in parameters.controlnets)

    def part(self, loaded: tuple[ControlNet, ...], run: Pass) -> Generator[None, None, ControlSet]:
        controls = []
        uses = run.parameters.controlnets
        for net, use, image in zip(loaded, uses, run.controls, strict=True):
            steps = kept(use.start, use.end, run.steps)
            controls.append(Control(net, net.prepare(image, run.size), use.weight, steps))
            yield
        return tuple(controls)

    def acts(self, part: ControlSet, row: RowState) -> Hashable:
        return _acting(part, row)

    def load_of(self, part: ControlSet, row: RowState) -> float:
        return COST * len(_acting(part, row))

    def stack(self, stacked: Stacked, parts: Sequence[ControlSet | None]) -> Call:
        sets = [_acting(part or (), row) for part, row in zip(parts, stacked.rows, strict=True)]
        channels = self.family.traits.latent_channels
        return ControlCall(channels, calls(sets, stacked.guided, stacked.conditioning))


class ControlCall(Call):
    """This call runs the ControlNets that act in a batch."""

    def __init__(self, channels: int, runs: Sequence[Run]) -> None:
        self._channels = channels
        self._runs = runs

    def around(self, denoise: Denoise) -> Denoise:
        def controlled(sample: Tensor, timesteps: Tensor, **extra: Any) -> Tensor:
            added = residuals(self._runs, sample[:, : self._channels], timesteps)
            return denoise(sample, timesteps, residuals=added, **extra)

        return controlled


def _acting(part: ControlSet, row: RowState) -> ControlSet:
    """Return the ControlNets that are run at the row's next step."""
    return tuple(control for control in part if control.acts(row.step))
