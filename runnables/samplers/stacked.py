"""The tables of a batch's rows lie on the device together, so that steps copy nothing there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from runnables.samplers.table import SamplerTable, pad_depth


class Coefficients(NamedTuple):
    """These are the table entries of R rows, each at its own step, in float32.

    Attributes:
        matrix: (R, depth, depth + 2), as `table.advance` takes it.
        input_scale: (R,).
        timesteps: (R,).
        renoise: (R, 2).
    """

    matrix: Tensor
    input_scale: Tensor
    timesteps: Tensor
    renoise: Tensor


class StackedTables:
    """These tables serve R rows for as long as all of them take every step together.

    Args:
        steps: the step that each row takes next.

    Attributes:
        depth: state slots of the row that has most.
    """

    def __init__(
        self, tables: Sequence[SamplerTable], steps: Sequence[int], device: torch.device
    ) -> None:
        self.depth = max(table.depth for table in tables)
        self._packed = torch.cat([_packed(table, self.depth, device) for table in tables])
        firsts = accumulate((len(table) for table in tables), initial=0)
        places = [first + step for first, step in zip(firsts, steps, strict=False)]
        self._places = torch.tensor(places, device=device)

    def current(self) -> Coefficients:
        """Return every row's entries for the step that it takes next."""
        depth = self.depth
        matrix, rest = self._packed[self._places].split([depth * (depth + 2), 4], dim=1)
        return Coefficients(matrix.view(-1, depth, depth + 2), rest[:, 0], rest[:, 1], rest[:, 2:])

    def advance(self) -> None:
        """Move every row to its next step."""
        self._places += 1


@lru_cache(maxsize=256)
def _packed(table: SamplerTable, depth: int, device: torch.device) -> Tensor:
    """Pack coefficients, input scale, timestep and renoise: (K, depth * (depth + 2) + 4)."""
    padded = pad_depth(table, depth)
    return torch.cat(
        [
            padded.coefficients.flatten(1),
            padded.input_scale[:, None],
            padded.timesteps[:, None].float(),
            padded.renoise,
        ],
        dim=1,
    ).to(device)
