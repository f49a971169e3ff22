"""Rows of several samplers find their own entries in the tables that lie together."""

from __future__ import annotations

import torch

from runnables.samplers.compile import compile_table
from runnables.samplers.names import resolve
from runnables.samplers.stacked import StackedTables
from runnables.samplers.table import pad_depth
from tests.runnables.samplers.test_compile import CONFIG


def test_every_row_has_the_entries_of_its_own_step() -> None:
    tables = [compile_table(resolve(name), CONFIG, 6) for name in ("euler", "dpmpp_2m", "unipc")]
    steps, stacked = [3, 0, 2], StackedTables(tables, [3, 0, 2], torch.device("cpu"))
    depth = max(table.depth for table in tables)
    assert stacked.depth == depth
    for later in range(3):
        now = stacked.current()
        for row, (table, step) in enumerate(zip(tables, steps, strict=True)):
            whole, call = pad_depth(table, depth), step + later
            assert torch.equal(now.matrix[row], whole.coefficients[call])
            assert now.input_scale[row] == table.input_scale[call]
            assert now.timesteps[row] == table.timesteps[call]
            assert torch.equal(now.renoise[row], table.renoise[call])
        assert now.renoise.shape == (3, 2)
        stacked.advance()
