"""The choice of the next group, without any model."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from runnables.engine.batch_key import BatchKey
from runnables.engine.batcher import choose


@dataclass(frozen=True)
class Row:
    key: BatchKey
    urgency: float
    load: float


KEYS = [BatchKey(1, 8, 8, 77), BatchKey(1, 8, 16, 77), BatchKey(2, 8, 8, 77)]
rows = st.builds(Row, st.sampled_from(KEYS), st.floats(0, 100), st.sampled_from([1, 1.5, 2, 4]))


@settings(deadline=None)
@given(st.lists(rows, min_size=1, max_size=30), st.integers(1, 20))
def test_the_most_urgent_row_is_served_in_company_that_fits(waiting: list[Row], limit: int) -> None:
    chosen = choose(waiting, lambda key: limit)
    first = min(waiting, key=lambda row: row.urgency)
    assert chosen[0].urgency == first.urgency
    assert len({row.key for row in chosen}) == 1
    assert len(chosen) == 1 or sum(row.load for row in chosen) <= limit
    left = [row for row in waiting if row not in chosen and row.key == chosen[0].key]
    assert all(row.urgency >= max(one.urgency for one in chosen) for row in left)


def test_a_batch_is_filled() -> None:
    waiting = [Row(KEYS[0], time, 2) for time in range(10)]
    assert len(choose(waiting, lambda key: 8)) == 4
