"""In the simulation every task ends once, and settings act as they should."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulation import BASE, simulate


@pytest.mark.parametrize("interruptions", [0.0, 60.0])
def test_every_task_ends_once(interruptions: float) -> None:
    assumed = replace(BASE, interruptions=interruptions, noticed=0.5)
    out = simulate(assumed, rate=5, burst_s=30)
    same = simulate(assumed, rate=5, burst_s=30)
    assert out.latencies == same.latencies
    calm = simulate(replace(BASE, interruptions=0.0), rate=5, burst_s=30)
    assert len(out.latencies) == len(calm.latencies) > 100
    assert (out.interrupted > 0) == (interruptions > 0)


def test_a_task_alone_takes_a_cold_start_and_its_steps() -> None:
    out = simulate(replace(BASE, interruptions=0.0), rate=0.01, burst_s=1)
    generation = BASE.steps * (BASE.step_s + BASE.row_s)
    start = out.latencies[0] - generation
    low, high = (one + BASE.image_s + BASE.model_s for one in BASE.node_s)
    assert low <= start <= high + BASE.poll_s + 1


def test_batching_ends_a_burst_sooner() -> None:
    alone = simulate(replace(BASE, batch=1, in_flight=1), rate=20)
    assert simulate(BASE, rate=20).percentile(0.95) < 0.7 * alone.percentile(0.95)
