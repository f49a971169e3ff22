"""The policy is tested without any model: the next batch, room, and turns of tasks and steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from runnables.engine.scheduling import (
    BatchKey,
    Busy,
    Candidate,
    Queue,
    Task,
    Tasks,
    Turns,
    has_room,
)
from runnables.ticket import ANYBODY, Caller
from tests.runnables.engine.simulated import SIZES, Request, Work

requests = st.builds(
    Request,
    st.floats(0, 5),
    st.integers(1, 50),
    caller=st.sampled_from([Caller("a"), Caller("b", 2.0)]),
    size=st.sampled_from(sorted(SIZES)),
    priority=st.sampled_from(["low", "normal", "high"]),
)


def candidate(request: Request, load: float = 2.0) -> Candidate[Any]:
    work: Any = Work(request)
    key, calls = SIZES[request.size], request.steps
    return Candidate(request, work, key, load, calls, work.seconds, work.seconds / 2)


def call_s(one: Candidate[Any], load: float) -> float:
    return 1.0 + load


def turns(limit: float, now: float = 0.0) -> Turns[Any]:
    return Turns(lambda one: limit, call_s, lambda: now, mixes_sizes=False)


@settings(deadline=None)
@given(
    st.lists(st.tuples(requests, st.sampled_from([1, 1.5, 2, 4])), min_size=1, max_size=30),
    st.integers(1, 20),
    st.lists(st.floats(0, 9), max_size=10),
)
def test_a_batch_is_of_one_key_and_fits(
    waiting: list[tuple[Request, float]], limit: int, seconds: list[float]
) -> None:
    candidates, policy = [candidate(*one) for one in waiting], turns(limit, now=3.0)
    for step in [*seconds, 1.0]:
        chosen = policy.choose(candidates)
        assert chosen
        assert len(set(map(id, chosen))) == len(chosen)
        assert len({one.key for one in chosen}) == 1
        assert len(chosen) == 1 or sum(one.load for one in chosen) <= limit
        policy.took(chosen, candidates, step)


def test_a_batch_is_filled() -> None:
    waiting = [candidate(Request(0.0, 20)) for _ in range(10)]
    assert len(turns(8).choose(waiting)) == 4


def test_only_much_longer_requests_are_kept_from_a_step() -> None:
    """With one more row of them it would take more than twice as long as for the first alone."""
    first = candidate(Request(0.0, 4))
    assert len(turns(20).choose([first, *(candidate(Request(0.0, 16)) for _ in range(9))])) == 10
    assert len(turns(20).choose([first, *(candidate(Request(0.0, 20)) for _ in range(9))])) == 2


def test_what_others_cost_beside_the_steps_is_part_of_the_doubling() -> None:
    small, other = Caller("small"), Caller("other")
    first = candidate(Request(0.0, 4, caller=small))
    waiting = [first, *(candidate(Request(0.0, 24, caller=small)) for _ in range(9))]
    policy = turns(20)
    policy.delayed(9.0)
    assert len(policy.choose(waiting)) == 2, "before the first step nobody was delayed"
    policy.took_beside(small, 2.0)
    assert len(policy.choose(waiting)) == 2, "its own task delays nobody else"
    policy.took_beside(other, 2.0)
    assert policy.choose(waiting) == [first]


def test_a_callers_calls_of_another_size_do_not_delay_its_own() -> None:
    """The names of its requests are equal, and not one object: each hashes its key."""
    short, long, tall = (
        candidate(Request(0.0, steps, caller=Caller("".join(["a", "b"])), size=size))
        for steps, size in [(4, "square"), (24, "square"), (20, "tall")]
    )
    policy, waiting = turns(20), [short, long, tall]
    assert policy.choose(waiting) == [short, long]
    policy.took([short, long], waiting, 5.0)
    assert policy.choose(waiting) == [tall]
    policy.took([tall], waiting, 3.0)
    assert policy.choose(waiting) == [short, long]


def test_the_rest_of_a_step_is_for_those_that_had_less() -> None:
    small, busy = Caller("small"), Caller("busy")
    first, long = (candidate(Request(0.0, steps, caller=small)) for steps in (4, 24))
    policy = turns(4)
    policy.charge(busy, 100.0)
    assert policy.choose([candidate(Request(0.0, 4, caller=busy)), long, first]) == [first, long]


def test_a_step_comes_between_two_decodes_unless_its_caller_had_more() -> None:
    small, busy = Caller("small"), Caller("busy")
    step = candidate(Request(0.0, 4, caller=busy))
    decode, key = candidate(Request(0.0, 1, caller=small), load=1.0), BatchKey(1, 16, 16, 0)
    decode = replace(decode, key=replace(key, decoding=True))
    waiting, policy = [step, decode, replace(decode)], turns(1)
    for expected in (decode, step, decode):
        chosen = policy.choose(waiting)
        assert chosen == [expected]
        policy.took(chosen, waiting, 0.1)
    policy.charge(busy, 100.0)
    assert policy.choose(waiting) == [decode]


def test_the_least_that_is_left_goes_first_until_the_others_are_overdue() -> None:
    long, short = candidate(Request(0.0, 40)), candidate(Request(0.0, 4))
    assert turns(2).choose([long, short]) == [short]
    assert turns(2, now=long.due + 1).choose([long, short])[0] is short, "both are overdue"
    late = candidate(Request(long.due, 4))
    assert turns(2, now=long.due + 0.1).choose([long, late]) == [long]


def test_another_size_gets_as_much_time_as_the_first() -> None:
    waiting = [candidate(Request(0.0, 4)), candidate(Request(0.0, 40, size="tall"))]
    policy, seconds = turns(2), {"square": 0.0, "tall": 0.0}
    for _ in range(60):
        chosen = policy.choose(waiting)
        step = 1.0 if chosen[0].row.size == "square" else 3.0
        seconds[chosen[0].row.size] += step
        policy.took(chosen, waiting, step)
    assert abs(seconds["square"] - seconds["tall"]) <= 4.0


def test_callers_that_came_and_went_are_forgotten() -> None:
    policy = turns(2)
    for number in range(5000):
        one = candidate(Request(0.0, 4, caller=Caller(str(number))))
        policy.took(policy.choose([one]), [one], 1.0)
    assert len(policy._served) <= 1002


def test_a_new_caller_has_no_credit_of_times_before_it_came() -> None:
    policy, old = turns(2), candidate(Request(0.0, 4, caller=Caller("old")))
    for _ in range(10):
        policy.took(policy.choose([old]), [old], 1.0)
    assert policy.served(Caller("new")) == 9.0


def test_two_batches_are_prepared_ahead_and_more_for_short_and_for_new_callers() -> None:
    full = [candidate(Request(0.0, 20)) for _ in range(8)]  # 16 of 8 rows a call, twice
    same: Any = Work(Request(0.0, 20))
    waiting = task(1.0)
    waiting.held = 2.0
    assert has_room(full[:7], [], same, lambda area: 8)
    assert not has_room(full, [], same, lambda area: 8)
    assert not has_room(full[:7], [waiting], same, lambda area: 8), "a row that waits for a task"
    short: Any = Work(Request(0.0, 4))
    assert has_room(full, [], short, lambda area: 8)
    other: Any = Work(Request(0.0, 20, caller=Caller("other")))
    assert has_room(full, [], other, lambda area: 8)


def test_fewer_large_rows_are_prepared_ahead() -> None:
    """Also where none of them takes steps yet."""
    same: Any = Work(Request(0.0, 20))
    large = Task(same, iter(()), print, float, "encode", held=2.0)  # type: ignore[arg-type]
    assert has_room([], [large], same, lambda area: 8 * 256 / area)
    assert not has_room([], [large], same, lambda area: 256 / area)


def test_one_caller_leaves_room_for_others_on_an_empty_machine() -> None:
    flood: Any = Work(Request(0.0, 20, caller=Caller("flooder")))
    other: Any = Work(Request(0.0, 20))
    begun: list[Task] = []
    while has_room([], begun, flood, lambda area: 8):
        begun.append(Task(flood, iter(()), print, float, "encode", held=2.0))  # type: ignore[arg-type]
    assert len(begun) == 8, "two batches"
    assert has_room([], begun, other, lambda area: 8)


class Urgent:
    """This is a request as far as tasks look at it."""

    def __init__(self, urgency: float, caller: Caller = ANYBODY) -> None:
        self.urgency = urgency
        self.area = 1
        self.ticket = self
        self.caller = caller


def task(urgency: float, caller: Caller = ANYBODY) -> Task:
    return Task(Urgent(urgency, caller), iter(()), print, float, "upscale")  # type: ignore[arg-type]


def test_half_of_the_time_belongs_to_steps() -> None:
    tasks = Tasks()
    assert tasks.due(steps_wait=True) is None
    late, soon = task(2.0), task(1.0)
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


def test_the_task_of_the_caller_that_had_less_goes_first() -> None:
    busy, idle = Caller("busy"), Caller("idle")
    tasks = Tasks(lambda caller: 5.0 if caller is busy else 0.0)
    first, second = task(1.0, busy), task(2.0, idle)
    tasks.add(first)
    tasks.add(second)
    assert tasks.due(steps_wait=False) is second


def test_new_callers_begin_where_the_least_served_one_is() -> None:
    """It has a task, while another has steps: those do not take away what it may still have."""
    least, most, new = Caller("least"), Caller("most"), Caller("new")
    policy: Turns[Any] = Turns(
        lambda one: 2, call_s, lambda: 0.0, lambda: [least, most], mixes_sizes=False
    )
    policy.charge(most, 100.0)
    policy.choose([candidate(Request(0.0, 4, caller=most))])
    assert policy.served(least) == policy.served(new) == 0.0
    policy.took_beside(least, 60.0)
    assert policy.served(least) == policy.served(new) == 60.0
    policy.took_beside(least, 60.0)
    assert policy.served(new) == 100.0


# -- requests that wait -------------------------------------------------------------------------


def waiting_room(begun: Sequence[Busy] = ()) -> Queue:
    return Queue(60.0, lambda: begun, clock=lambda: 0.0)


def admitted(queue: Queue, *requests: Request) -> list[Any]:
    works: list[Any] = [Work(request) for request in requests]
    for work in works:
        queue.admit(work)
    return works


def positions(works: Sequence[Any]) -> list[int]:
    return [work.ticket.progress.position for work in works]


def test_who_is_first_in_line_knows_it() -> None:
    queue = waiting_room()
    late, soon, between = works = admitted(queue, *(Request(0.0, n) for n in (12, 4, 8)))
    assert queue.ordered == [soon, between, late]
    assert positions(works) == [2, 0, 1]
    assert queue.take() is soon
    assert positions([between, late]) == [0, 1]


def test_what_has_ended_leaves_the_queue() -> None:
    queue = waiting_room()
    first, second, third = admitted(queue, *(Request(0.0, n) for n in (4, 8, 12)))
    assert queue.discard(lambda work: work is second) == [second]
    assert queue.ordered == [first, third]
    assert len(queue) == 2
    assert positions([first, third]) == [0, 1]


def test_what_a_caller_has_begun_counts_as_served() -> None:
    flooder, small = Caller("flooder", 2.0), Caller("small")
    begun = [Busy(flooder, 0.0, 3.0)]
    queue = waiting_room(begun)
    ours, theirs = admitted(queue, Request(0.0, 4, caller=flooder), Request(0.0, 8, caller=small))
    assert queue.first is theirs
    begun.append(Busy(small, 0.0, 2.0))
    assert queue.first is ours, "by weight it had less"


# -- calls of several sizes ---------------------------------------------------------------------


def sized(height: int, width: int, load: float = 2.0, **key: Any) -> Candidate[Any]:
    """A row of this size, whose key has these attributes."""
    one = candidate(Request(0.0, 20), load)
    return replace(one, key=BatchKey(1, height, width, 77, **({"mixes": True} | key)))


def mixing(overhead: float, limit: float = 16) -> Turns[Any]:
    """A call takes `overhead` and a second for each row of 16x16."""
    return Turns(
        lambda one: limit,
        lambda one, load: overhead + load * one.key.area / 256,
        mixes_sizes=True,
    )


def sizes(candidates: list[Candidate[Any]]) -> list[tuple[int, int]]:
    return [(one.key.height, one.key.width) for one in candidates]


def test_sizes_share_a_call_where_it_takes_less_time_than_two() -> None:
    rows = [sized(16, 16), sized(12, 16), sized(16, 12)]
    mixed = mixing(overhead=2.0).mixed(rows)
    assert sizes(mixed) == [(16, 16)] * 3
    assert len({one.key for one in mixed}) == 1
    assert [one.row for one in mixed] == [one.row for one in rows]
    assert mixing(overhead=0.1).mixed(rows) == rows, "each row costs more than a call saves"
    full = [sized(16, 16, load=16), sized(12, 16, load=16)]
    assert mixing(overhead=2.0).mixed(full) == full, "no call is saved"


def test_a_call_is_as_large_as_its_rows_along_each_side() -> None:
    mixed = mixing(overhead=2.0).mixed([sized(12, 16), sized(16, 12)])
    assert sizes(mixed) == [(16, 16)] * 2


def test_a_very_different_size_stays_apart() -> None:
    rows = [sized(16, 16), sized(12, 16), sized(64, 64)]
    assert sizes(mixing(overhead=2.0).mixed(rows)) == [(16, 16), (16, 16), (64, 64)]


def test_listed_rows_take_the_time_of_their_own_positions() -> None:
    """So they share a call that saves little, and their load counts rows of the largest size."""
    rows = [sized(16, 16, listed=True), sized(8, 16, listed=True), sized(8, 8, listed=True)]
    mixed = mixing(overhead=0.1).mixed(rows)
    assert sizes(mixed) == [(16, 16)] * 3
    assert [one.load for one in mixed] == [2.0, 1.0, 0.5]
    assert all(one.key.listed for one in mixed)


def test_one_row_that_is_not_listed_puts_all_of_the_call_on_a_canvas() -> None:
    rows = [sized(16, 16, listed=True), sized(12, 16, listed=True), sized(12, 16)]
    assert mixing(overhead=0.1).mixed(rows) == rows, "each row costs more than a call saves"
    mixed = mixing(overhead=2.0).mixed(rows)
    assert [one.load for one in mixed] == [2.0, 2.0, 2.0]
    assert not any(one.key.listed for one in mixed)


def test_what_cannot_share_a_call_keeps_its_key() -> None:
    policy = mixing(overhead=2.0)
    for other in (
        replace(sized(12, 16), key=BatchKey(2, 12, 16, 77, mixes=True)),
        sized(12, 16, mixes=False),
        sized(12, 16, mixes=False, decoding=True),
    ):
        rows = [sized(16, 16), other]
        assert policy.mixed(rows) == rows
    same_size = [sized(16, 16), sized(12, 16), sized(12, 16, mixes=False)]
    assert policy.mixed(same_size) == same_size, "rows of one size stay together"
    one_size = Turns(lambda one: 16, call_s, mixes_sizes=False)
    rows = [sized(16, 16), sized(12, 16)]
    assert one_size.mixed(rows) == rows, "the device takes one size only"


def test_a_call_of_several_sizes_is_no_other_call_of_its_size() -> None:
    """Rows of 16x16 that cannot share it have another key."""
    rows = [sized(12, 16), sized(16, 12), sized(16, 16, mixes=False)]
    first, second, third = mixing(overhead=2.0).mixed(rows)
    assert first.key == second.key != third.key


def test_prompt_lengths_share_a_call() -> None:
    long = sized(16, 16)
    long = replace(long, key=replace(long.key, tokens=154))
    mixed = mixing(overhead=0.01).mixed([sized(16, 16), long])
    assert {one.key.tokens for one in mixed} == {154}


def test_an_idle_engine_waits_where_requests_found_no_room() -> None:
    """It would take turns without work as fast as it can."""
    queue, waits = Queue(60.0, lambda: []), list[float]()
    queue._changed.wait = waits.append  # type: ignore[assignment]
    queue.admit(cast(Any, Work(Request(0.0, 4, deadline=1e9))))
    queue.wait(1.0)
    assert not waits, "what was just admitted may have room"
    queue.wait(2.0)
    queue.wake()
    queue.wait(3.0)
    assert waits == [2.0]
