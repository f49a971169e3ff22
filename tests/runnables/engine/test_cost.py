"""The cost model learns what steps take."""

from __future__ import annotations

import pytest

from runnables.engine.cost import CostModel


def test_calibration_separates_overhead_from_rows() -> None:
    cost = CostModel()
    cost.calibrate([(2, 64, 0.010 + 2 * 64 * 1e-4), (8, 64, 0.010 + 8 * 64 * 1e-4)])
    assert cost.overhead == pytest.approx(0.010)
    assert cost.rate == pytest.approx(1e-4)


def test_observations_pull_the_model() -> None:
    cost = CostModel(overhead=0.0, rate=1e-4)
    for _ in range(200):
        cost.observe_step(4, 64, 3 * 4 * 64 * 1e-4)
    assert cost.step(4, 64) == pytest.approx(3 * 4 * 64 * 1e-4, rel=0.01)


def test_alone_counts_steps_rows_and_decoding() -> None:
    cost = CostModel(overhead=1.0, rate=0.5, decode_rate=2.0)
    assert cost.alone(steps=3, rows=2, images=2, area=10) == 3 * (1 + 0.5 * 4 * 10) + 40


def test_an_upscaler_is_known_from_its_first_turn_on() -> None:
    cost = CostModel()
    assert cost.turns("lanczos", 3) == pytest.approx(0.3)
    cost.observe_turn("lanczos", 2.0)
    assert cost.turns("lanczos", 3) == pytest.approx(6.0)
    for _ in range(50):
        cost.observe_turn("lanczos", 1.0)
    assert cost.turns("lanczos", 1) == pytest.approx(1.0, rel=0.01)
    assert cost.turns("other", 1) == pytest.approx(0.1)
