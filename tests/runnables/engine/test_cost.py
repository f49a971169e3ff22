"""The cost model learns what steps take."""

from __future__ import annotations

import random

import pytest

from runnables.engine.cost import SHARING, CostModel

OVERHEAD, RATE = 0.010, 1e-4


def seconds(rows: float, area: int) -> float:
    return OVERHEAD + RATE * rows * area


def test_calibration_separates_overhead_from_rows() -> None:
    cost = CostModel()
    cost.calibrate([(2, 64, seconds(2, 64)), (8, 64, seconds(8, 64))])
    assert cost.overhead == pytest.approx(OVERHEAD)
    assert cost.rate == pytest.approx(RATE)


@pytest.mark.parametrize("wrong", [0.02, 0.2, 5.0, 100.0])
def test_a_warm_up_on_a_busy_machine_does_not_stick(wrong: float) -> None:
    """A calibration that is wrong by a factor of up to 100 is mended within one image's steps."""
    cost = CostModel(overhead=wrong * OVERHEAD, rate=wrong * RATE)
    for _ in range(20):
        cost.observe_step(2, 64, seconds(2, 64))
    assert cost.step(2, 64) == pytest.approx(seconds(2, 64), rel=0.1)


def test_a_warm_up_is_doubted_until_steps_confirm_it() -> None:
    cost = CostModel()
    assert cost.doubt == 10
    for _ in range(10):
        cost.observe_step(2, 64, 0.01)
    assert cost.doubt == 1


def test_overhead_and_rate_are_learnt_apart() -> None:
    """Calibrated with all in the rate, it learns from calls of different size."""
    cost, rng = CostModel(overhead=0.0, rate=2 * RATE), random.Random(0)
    for _ in range(400):
        rows = rng.choice([1, 2, 4, 8, 16])
        cost.observe_step(rows, 64, seconds(rows, 64) * rng.uniform(0.9, 1.1))
    assert cost.overhead == pytest.approx(OVERHEAD, rel=0.3)
    assert cost.rate == pytest.approx(RATE, rel=0.1)


@pytest.mark.parametrize(("small", "large"), [(1.5, 1.0), (1.0, 1.5)])
def test_the_first_calls_mend_a_warm_up_that_was_wrong_for_one_size(
    small: float, large: float
) -> None:
    cost, rng = CostModel(), random.Random(0)
    cost.calibrate([(2, 64, small * seconds(2, 64)), (8, 64, large * seconds(8, 64))])
    for _ in range(30):
        rows = rng.randint(2, 16)
        cost.observe_step(rows, 64, seconds(rows, 64) * rng.uniform(0.95, 1.05))
    for rows in (2, 8, 16):
        assert cost.step(rows, 64) == pytest.approx(seconds(rows, 64), rel=0.06)


def test_slow_calls_of_one_size_make_all_sizes_slower() -> None:
    """One size alone does not tell overhead and rate apart, so both become longer."""
    cost = CostModel(overhead=OVERHEAD, rate=RATE)
    for _ in range(60):
        cost.observe_step(4, 64, 1.3 * seconds(4, 64))
    for rows in (2, 16):
        assert cost.step(rows, 64) == pytest.approx(1.3 * seconds(rows, 64), rel=0.1)


def test_outliers_have_a_bounded_effect() -> None:
    cost = CostModel(overhead=OVERHEAD, rate=RATE)
    for number in range(100):
        slow = number % 20 == 0
        cost.observe_step(4, 64, seconds(4, 64) * (1000 if slow else 1))
        cost.observe_decode(1, 64, 0.0064 * (1000 if slow else 1))
    assert cost.step(4, 64) == pytest.approx(seconds(4, 64), rel=0.15)
    assert cost.decode_rate == pytest.approx(1e-4, rel=0.15)


def test_a_slower_machine_is_noticed() -> None:
    cost = CostModel(overhead=OVERHEAD, rate=RATE)
    for _ in range(10):
        cost.observe_step(4, 64, 3 * seconds(4, 64))
        cost.observe_decode(2, 64, 3 * 2 * 64 * 1e-4)
    assert cost.step(4, 64) == pytest.approx(3 * seconds(4, 64), rel=0.1)
    assert cost.decode_rate == pytest.approx(3e-4, rel=0.1)


def test_alone_counts_steps_rows_and_decoding() -> None:
    cost = CostModel(overhead=1.0, rate=0.5, decode_rate=2.0)
    assert cost.alone(steps=3, rows=2, images=2, area=10) == 3 * (1 + 0.5 * 4 * 10) + 40


def test_a_share_has_part_of_the_overhead() -> None:
    cost = CostModel(overhead=1.0, rate=0.5)
    assert cost.share(work=20, calls=4) == 10 + 4 / SHARING
    assert cost.left(work=20, calls=4) == 10 + 4


def test_an_upscaler_is_known_from_its_first_turn_on() -> None:
    cost = CostModel()
    assert cost.turns("lanczos", 3) == pytest.approx(0.3)
    cost.observe_turn("lanczos", 2.0)
    assert cost.turns("lanczos", 3) == pytest.approx(6.0)
    for _ in range(50):
        cost.observe_turn("lanczos", 1.0)
    assert cost.turns("lanczos", 1) == pytest.approx(1.0, rel=0.01)
    assert cost.turns("other", 1) == pytest.approx(0.1)
