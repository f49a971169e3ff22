"""In the simulation every task ends once, and settings act as they should."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulation import BASE, Cluster, Task, simulate


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
    """In a burst that lasts: in a short one the cold start is most of it."""
    alone = simulate(replace(BASE, batch=1, in_flight=1), rate=20, burst_s=240)
    assert simulate(BASE, rate=20, burst_s=240).percentile(0.95) < 0.7 * alone.percentile(0.95)


@pytest.mark.parametrize(
    ("changed", "quicker"),
    [
        ({"spot_share": 0.0}, None),
        ({"consolidate_s": 600.0}, None),
        ({"end_s": 300.0}, None),
        ({"image_gb": 12.0}, False),
    ],
)
def test_what_costs_more(changed: dict[str, float], quicker: bool | None) -> None:
    calm = replace(BASE, interruptions=0.0)
    base, out = simulate(calm, rate=10), simulate(replace(calm, **changed), rate=10)
    assert out.dollars > base.dollars
    if quicker is not None:
        assert (out.percentile(0.95) < base.percentile(0.95)) == quicker


def test_an_empty_node_is_taken_again_before_it_goes() -> None:
    """A second task that comes while the first one's node is empty waits for the model only."""
    cluster = Cluster(replace(BASE, interruptions=0.0, cooldown_s=5.0, consolidate_s=300.0), seed=0)
    cluster.env.process(cluster._arrive(0.01, 1))
    cluster.env.process(cluster._activate())
    cluster.env.process(cluster._scale())
    while not cluster.empty:
        cluster.env.step()
    assert (cluster.nodes, cluster.replicas, len(cluster.outcome.latencies)) == (1, 0, 1)
    cluster.waiting.append(Task(cluster.env.now, BASE.steps))
    cluster.open += 1
    cluster.env.run()
    assert cluster.nodes == 0
    assert cluster.outcome.latencies[1] < BASE.model_s + 2 * BASE.poll_s


def test_the_autoscaler_adds_four_or_four_times_as_many() -> None:
    sizes = []
    cluster = Cluster(replace(BASE, most=100), seed=0)
    resize = cluster._resize
    cluster._resize = lambda size: (sizes.append(size), resize(size))[1]  # type: ignore[method-assign]
    cluster.run(rate=100, burst_s=60)
    assert sizes[:4] == [1, 5, 20, 80]
