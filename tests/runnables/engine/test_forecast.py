"""Estimates of when requests end, on a machine with a virtual clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runnables.engine import forecast
from runnables.engine.forecast import EVERY_S, SHARE, Forecast
from runnables.engine.newcomers import AT_FIRST, Newcomers
from runnables.engine.scheduling import Candidate, Turns
from runnables.parameters import TextToImage
from tests.runnables.engine import virtual
from tests.runnables.engine.simulated import COST, LIMIT, Machine, Request, Row, Work
from tests.runnables.engine.virtual import VirtualEngine


def call_s(one: Candidate[Any], load: float) -> float:
    return COST.step(load, one.key.area)


class Looks:
    """A forecast by a clock that stands still, and how often it has looked ahead.

    Args:
        look_s: what looking ahead takes.
    """

    def __init__(self, look_s: float = 0.0) -> None:
        self.now, self.count, self._look_s = 100.0, 0, look_s
        turns: Turns[Any] = Turns(self._limit, call_s, lambda: self.now, mixes_sizes=True)
        self.forecast: Forecast[Any] = Forecast(turns, call_s, lambda: self.now)
        copied = turns.copied

        def counted(*arguments: Any) -> Turns[Any]:
            self.count += 1
            self.now += self._look_s
            return copied(*arguments)

        turns.copied = counted  # type: ignore[method-assign]

    def _limit(self, one: Candidate[Any]) -> float:
        return LIMIT

    def seconds(self, work: Any, *others: Any) -> float:
        """Estimate the end of a request beside others of one row each."""
        return self.forecast.seconds(work, [Row(one).candidate for one in (work, *others)])


def work(steps: int) -> Any:
    return Work(Request(0.0, steps))


def test_alone_it_takes_its_own_time_and_some_for_newcomers() -> None:
    one = work(20)
    assert Looks().seconds(one) == pytest.approx(AT_FIRST * one.seconds)


def test_calls_that_all_share_are_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the first request is through, and then until the second: a look costs little."""
    chosen, choose = list[int](), Turns.choose

    def counted(self: Turns[Any], candidates: Any) -> Any:
        chosen.append(len(candidates))
        return choose(self, candidates)

    monkeypatch.setattr(Turns, "choose", counted)
    first, second = work(20), work(30)
    looks = Looks()
    seconds = looks.seconds(first, second)
    assert chosen == [2, 1]
    together_s, decode_s = 20 * COST.step(4.0, first.area), COST.decode(1, first.area)
    assert seconds == pytest.approx(AT_FIRST * (together_s + decode_s))
    last_s = 10 * COST.step(2.0, first.area) + decode_s
    assert looks.seconds(second, first) == pytest.approx(
        AT_FIRST * (together_s + decode_s + last_s)
    )


def test_it_is_exact_where_nobody_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of all sizes that share calls, take turns, and are decoded."""
    monkeypatch.setattr(forecast, "EVERY_S", 0.0)
    monkeypatch.setattr(Newcomers, "learn", lambda self, estimates, end: None)
    requests = [
        Request(0.0, steps, images, size=size)
        for steps, images, size in [
            (8, 1, "square"),
            (50, 1, "low"),
            (20, 4, "tall"),
            (30, 1, "narrow"),
            (12, 2, "square"),
        ]
    ]
    Machine().run(requests)
    for one in requests:
        assert one.ended is not None
        assert one.etas
        for at, eta in one.etas:
            assert eta / AT_FIRST == pytest.approx(one.ended - at, rel=0.15), one


def test_requests_that_wait_are_part_of_it(tiny_model: Callable[[str], Path]) -> None:
    """There is room for 16 short requests beside the long ones, which all of them overtake."""

    def eta(short: int) -> float:
        engine = VirtualEngine(tiny_model("sd1"))
        long = [engine.submit(_wanted(50)) for _ in range(16)]
        engine.run(lambda: long[0].progress.step >= 2)
        sent = [engine.submit(_wanted(20)) for _ in range(short)]
        engine.run(lambda: any(one.progress.step for one in sent))
        assert engine.engine.waiting == short - 16
        active = engine.engine._active
        first = next(row.work for row in active.rows if row.work.ticket is long[0])
        return engine.engine._steps.forecast.seconds(first, active.candidates)

    work_s = 24 * 20 * 2 * virtual.ROW_S
    assert eta(40) - eta(16) > 0.5 * work_s


def _wanted(steps: int) -> TextToImage:
    return TextToImage(prompt="sea", seed=1, num_inference_steps=steps)


def test_looking_ahead_changes_no_turn() -> None:
    def ends(machine: Machine) -> list[float | None]:
        requests = [
            Request(0.1 * i, 5 + 7 * i % 40, size=["low", "tall"][i % 2]) for i in range(20)
        ]
        machine.run(requests)
        return [one.ended for one in requests]

    silent = Machine()
    silent.forecast.seconds = lambda work, candidates: 0.0  # type: ignore[method-assign]
    assert ends(Machine()) == ends(silent)


def test_between_two_looks_an_estimate_counts_down() -> None:
    looks, one, other = Looks(), work(200), work(150)
    first = looks.seconds(one, other)
    looks.now += EVERY_S / 2
    second = looks.seconds(one, other)
    assert second == pytest.approx(first - AT_FIRST * EVERY_S / 2)
    assert looks.count == 1
    looks.now += EVERY_S / 2
    assert looks.seconds(one, other) == pytest.approx(first)
    assert looks.count == 2


def test_an_estimate_never_falls_below_what_is_left_alone() -> None:
    looks, one = Looks(look_s=10.0), work(20)
    looks.seconds(one)
    looks.now += 100.0
    assert looks.seconds(one) == pytest.approx(AT_FIRST * one.seconds)


def test_a_newcomer_lets_it_look_again() -> None:
    looks, one, newcomer = Looks(), work(20), work(10)
    alone = looks.seconds(one)
    looks.now += EVERY_S / 10
    looks.seconds(newcomer, one)
    assert looks.count == 2
    assert looks.seconds(one, newcomer) > alone


def test_a_newcomer_is_slowed_down_as_others_are_until_it_may_look_again() -> None:
    looks, known = Looks(look_s=0.001), [work(20) for _ in range(8)]
    all_s = [looks.seconds(*known[i:], *known[:i]) for i in range(8)]
    stretch = sum(all_s) / sum(one.seconds for one in known)
    assert stretch > 2
    newcomer = work(10)
    assert looks.seconds(newcomer, *known) == pytest.approx(newcomer.seconds * stretch, rel=0.01)
    assert looks.count == 1


def test_looking_ahead_takes_little_of_the_time() -> None:
    looks, one = Looks(look_s=1.0), work(20)
    for _ in range(1000):
        looks.seconds(work(20), one)
        looks.now += 0.2
    spent = looks.count * 1.0
    assert 1 < spent <= SHARE * (looks.now - 100.0) + 1.0


def test_it_learns_what_newcomers_add() -> None:
    looks = Looks()
    for _ in range(20):
        one = work(20)
        looks.seconds(one)
        looks.now += 1.65 * one.seconds
        looks.forecast.ended(one)
    other = work(20)
    assert looks.seconds(other) == pytest.approx(1.65 * other.seconds)


def test_a_request_with_nothing_left_has_an_estimate() -> None:
    """Where a decode is known to take no time, ratios to it do not fail."""
    looks, one = Looks(), work(20)
    row = replace(Row(one).candidate, left_s=0.0)
    assert math.isfinite(looks.forecast.seconds(one, [row]))
    looks.forecast.ended(one)
