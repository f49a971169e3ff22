"""How much longer requests take than without those that come later is learnt."""

from __future__ import annotations

import itertools
import random

import pytest

from runnables.engine.newcomers import AT_FIRST, DOUBTED, KEPT, Estimate, Newcomers


def lived(newcomers: Newcomers, ratio: float, stretch: float = 1.0, alone_s: float = 1.0) -> None:
    """Let a request end that took so many times longer than its only estimate."""
    one = Estimate(0.0, stretch * alone_s, alone_s)
    newcomers.learn([one], ratio * one.left_s)


def factor(newcomers: Newcomers, stretch: float = 1.0, alone_s: float = 1.0) -> float:
    return newcomers.factor(Estimate(0.0, stretch * alone_s, alone_s))


def test_what_is_assumed_at_first_is_soon_replaced() -> None:
    newcomers = Newcomers()
    assert factor(newcomers) == AT_FIRST
    for _ in range(DOUBTED):
        lived(newcomers, 2.0)
    assert factor(newcomers) == pytest.approx(2.0)


def test_estimates_are_exact_where_every_request_takes_as_much_longer() -> None:
    newcomers = Newcomers()
    for _ in range(KEPT):
        lived(newcomers, 1.0)
    assert factor(newcomers) == pytest.approx(1.0)


def test_one_request_that_took_very_long_changes_nothing() -> None:
    newcomers = Newcomers()
    for ratio in [1.2] * 20 + [1000.0]:
        lived(newcomers, ratio)
    assert factor(newcomers) == pytest.approx(1.2)


def test_who_shares_the_machine_already_is_slowed_down_less_by_others() -> None:
    newcomers, rng = Newcomers(), random.Random(0)
    for _ in range(100):
        lived(newcomers, rng.uniform(1.7, 1.9), stretch=1.0)
        lived(newcomers, rng.uniform(0.9, 1.1), stretch=4.0)
    assert factor(newcomers, stretch=1.1) == pytest.approx(1.8, rel=0.05)
    assert factor(newcomers, stretch=3.6) == pytest.approx(1.0, rel=0.05)


def test_who_has_little_left_is_slowed_down_less_by_others() -> None:
    newcomers = Newcomers()
    for _ in range(100):
        lived(newcomers, 1.0, alone_s=0.1)
        lived(newcomers, 2.0, alone_s=10.0)
    assert factor(newcomers, alone_s=0.2) == pytest.approx(1.0)
    assert factor(newcomers, alone_s=5.0) == pytest.approx(2.0)


def test_an_estimate_is_right_as_often_as_possible() -> None:
    """Most requests take hardly longer, and some much: one estimate is right for three of four."""
    newcomers, ratios = Newcomers(), [1.0, 1.0, 1.6, 3.0]
    for ratio in ratios * 8:
        lived(newcomers, ratio)
    found = factor(newcomers)
    assert all(abs(found / ratio - 1) <= 0.3 for ratio in ratios[:3])


def test_a_long_request_counts_no_more_than_four_estimates() -> None:
    """Else one of a thousand steps would replace what all others have taught."""
    newcomers = Newcomers()
    for _ in range(20):
        lived(newcomers, 1.0)
    newcomers.learn([Estimate(0.01 * i, 1.0, 1.0) for i in range(1000)], 100.0)
    assert factor(newcomers) == pytest.approx(1.0)


def test_what_is_long_past_is_forgotten() -> None:
    newcomers = Newcomers()
    for ratio in itertools.chain([3.0] * KEPT, [1.0] * KEPT):
        lived(newcomers, ratio)
    assert factor(newcomers) == pytest.approx(1.0)
