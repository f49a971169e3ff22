"""The policy is tested without any model: the next batch, and the turns of tasks and steps."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from runnables.engine.scheduling import BatchKey, Task, Tasks, choose, has_room


@dataclass(frozen=True)
class Row:
    key: BatchKey
    urgency: float
    load: float


KEYS = [BatchKey(1, 8, 8, 77), BatchKey(1, 8, 16, 77), BatchKey(2, 8, 8, 77)]
rows = st.builds(Row, st.sampled_from(KEYS), st.floats(0, 100), st.sampled_from([1, 1.5, 2, 4]))


@settings(deadline=None)
@given(st.lists(rows, min_size=1, max_size=30), st.integers(1, 20))
def test_the_most_urgent_row_is_served_with_those_that_fit(waiting: list[Row], limit: int) -> None:
    chosen = choose(waiting, lambda row: limit)
    first = min(waiting, key=lambda row: row.urgency)
    assert chosen[0].urgency == first.urgency
    assert len({row.key for row in chosen}) == 1
    assert len(chosen) == 1 or sum(row.load for row in chosen) <= limit
    left = [row for row in waiting if row not in chosen and row.key == chosen[0].key]
    assert all(row.urgency >= max(one.urgency for one in chosen) for row in left)


def test_a_batch_is_filled() -> None:
    waiting = [Row(KEYS[0], time, 2) for time in range(10)]
    assert len(choose(waiting, lambda row: 8)) == 4


def test_two_batches_are_prepared_ahead_and_more_for_an_urgent_request() -> None:
    full = [Row(KEYS[0], 5.0, 2) for _ in range(8)]  # 16 of 8 rows a call, twice
    assert has_room(full[:7], 0.0, [], 9.0, lambda area: 8)
    assert not has_room(full, 0.0, [], 9.0, lambda area: 8)
    assert not has_room(full[:7], 2.0, [], 9.0, lambda area: 8), "a row that waits for a task"
    assert has_room(full, 0.0, [], 1.0, lambda area: 8), "more urgent than some row"


class Urgent:
    """This is a request as far as tasks look at it."""

    def __init__(self, urgency: float) -> None:
        self.urgency = urgency


def test_half_of_the_time_belongs_to_steps() -> None:
    tasks = Tasks()
    assert tasks.due(steps_wait=True) is None
    late, soon = (
        Task(Urgent(urgency), iter(()), print, "", float)  # type: ignore[arg-type]
        for urgency in (2.0, 1.0)
    )
    tasks.add(late)
    tasks.add(soon)
    assert tasks.due(steps_wait=True) is soon
    tasks.took(1.0)
    assert tasks.due(steps_wait=True) is None
    assert tasks.due(steps_wait=False) is soon
    tasks.stepped(0.6)
    assert tasks.due(steps_wait=True) is None
    tasks.stepped(0.6)
    assert tasks.due(steps_wait=True) is soon
    tasks.drop_all(soon.work)
    assert tasks.due(steps_wait=True) is late
