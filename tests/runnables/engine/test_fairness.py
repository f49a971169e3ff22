"""The bounds of the policy hold on a machine with a virtual clock: no real seconds.

Most tests run the policy alone (`simulated.py`), and some the whole engine (`virtual.py`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runnables.errors import DeadlineExceeded, OverCapacity
from runnables.parameters import TextToImage
from runnables.ticket import Caller, Ticket
from tests.runnables.engine import virtual
from tests.runnables.engine.simulated import LIMIT, Machine, Request, alone, full_step
from tests.runnables.engine.virtual import VirtualEngine

FLOODER, SMALL = Caller("flooder"), Caller("small")
DOUBLING = 2.0  # STRETCH is less: Python between the calls takes time of the bound, too
MIXED = ["square"] * 4 + ["low", "narrow"]  # as in `benchmarks/serving.py`


@pytest.mark.parametrize("size", ["square", "tall"])
@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_a_flood_costs_another_caller_a_doubling_and_a_step(size: str, pause: float) -> None:
    """100 requests to one; `tall` ones cannot share a call with the small caller's."""
    flood = [Request(i * pause, 20, caller=FLOODER, size=size) for i in range(500)]
    small = [Request(0.5 + i, 20, caller=SMALL) for i in range(5)]
    Machine(max_wait=10.0).run([*flood, *small])
    for one in small:
        assert one.refused is None
        assert one.latency <= DOUBLING * alone(one) + full_step(size)
    refused = [one.refused for one in flood if one.refused]
    assert refused, "the flood is refused, as it waits for its own requests"
    assert all(isinstance(error, OverCapacity) for error in refused)


def test_callers_get_their_share_by_weight() -> None:
    """Both always have work: in the first seconds the heavier gets three times as much."""
    heavy, light = Caller("heavy", 3.0), Caller("light", 1.0)
    requests = [Request(0.0, 20, caller=caller) for caller in (heavy, light) * 100]
    machine = Machine()
    machine.run(requests)
    half = machine.busy_s / 3
    ended = [one.caller.name for one in requests if one.ended and one.ended < half]
    assert ended.count("heavy") == pytest.approx(3 * ended.count("light"), rel=0.2)


@pytest.mark.parametrize("jobs", [1, 2, 3, 4])
def test_short_requests_stay_short_beside_long_ones(jobs: int) -> None:
    """The same caller's jobs of 4 images x 150 steps: beside them, requests of 4 steps."""
    long = [Request(0.0, 150, images=4) for _ in range(jobs)]
    short = [Request(1.0 + 0.61 * i, 4) for i in range(40)]
    Machine().run([*long, *short])
    ratios = [one.latency / alone(one) for one in short]
    assert max(ratios) <= 3.0, "also of one that comes when long ones end, and are decoded"
    solo = Machine().run([Request(0.0, 150, images=4) for _ in range(jobs)])
    assert max(one.latency for one in long) <= 1.21 * solo.now


@pytest.mark.parametrize("load", [0.7, 1.0, 1.2])
def test_a_newcomers_first_step_comes_soon_below_capacity(load: float) -> None:
    """It waits for the running step, and for one of another size, and then takes its own.

    The machine can serve twice the load that one at a time can (1.0 here).
    """
    requests = _poisson(load)
    Machine().run(requests)
    waits = [one.begun - one.at for one in requests if one.begun is not None]
    assert len(waits) == len(requests)
    assert np.percentile(waits, 99) <= 2 * full_step("tall") + full_step()


def test_sharing_costs_little_throughput() -> None:
    """A backlog of 4 to 50 steps is done in hardly more than full steps alone would take."""
    rng = random.Random(0)
    requests = [Request(0.0, rng.randint(4, 50), caller=Caller(str(i % 16))) for i in range(200)]
    machine = Machine().run(requests)
    full = sum(one.steps for one in requests) * full_step() / (LIMIT / 2)
    assert machine.busy_s <= 1.1 * full


def test_requests_end_sooner_where_their_sizes_share_calls() -> None:
    def measured(*, mixes_sizes: bool) -> tuple[float, float]:
        rng, sizes = random.Random(0), ["square", "square", "low", "narrow"]
        requests = [Request(0.4 * i, rng.randint(4, 50), size=rng.choice(sizes)) for i in range(99)]
        machine = Machine(mixes_sizes=mixes_sizes).run(requests)
        return machine.busy_s, float(np.mean([one.latency for one in requests]))

    shared, apart = measured(mixes_sizes=True), measured(mixes_sizes=False)
    assert shared[0] < 0.97 * apart[0], "less work"
    assert shared[1] < 0.7 * apart[1], "and less waiting"


def test_nobody_starves() -> None:
    """Long requests end although short ones keep coming, as they are overdue in the end."""
    long = [Request(0.0, 100, images=4, size="tall") for _ in range(3)]
    short = [Request(0.1 * i, 8) for i in range(600)]
    Machine().run([*long, *short])
    assert max(one.latency for one in long) <= 60.0


def test_low_priority_waits_longer_than_high() -> None:
    rng = random.Random(2)
    requests = [Request(0.0, 20, priority=rng.choice(["low", "high"])) for _ in range(100)]
    Machine().run(requests)
    waits: dict[str, list[float]] = {}
    for one in requests:
        waits.setdefault(one.priority, []).append(one.latency)
    assert np.mean(waits["high"]) < 0.7 * np.mean(waits["low"])


def test_a_small_request_is_let_in_beside_large_ones() -> None:
    large = [Request(0.0, 150, images=4) for _ in range(8)]
    small = Request(1.0, 4)
    Machine(max_wait=20.0).run([*large, small])
    assert small.refused is None
    assert any(one.refused for one in large)


def test_a_deadline_that_cannot_be_kept_is_refused_at_once() -> None:
    late: Any = Request(0.0, 150, images=4, deadline=1.0)
    fine = Request(0.0, 150, images=4, deadline=60.0)
    Machine().run([late, fine])
    assert isinstance(late.refused, DeadlineExceeded)
    assert "about 7" in late.refused.message
    assert late.refused.loc == ("deadline_s",)
    assert fine.refused is None


@pytest.mark.parametrize(("load", "share"), [(0.3, 0.93), (0.5, 0.92), (1.0, 0.86)])
def test_estimates_after_five_steps_are_right_within_30_percent(load: float, share: float) -> None:
    """Who comes later is not known: the fuller the machine (2.0), the worse the estimates."""
    every = [_poisson(load, seed) for seed in (1, 2)]
    for requests in every:
        Machine().run(requests)
    assert _within_30_percent(itertools.chain(*every)) >= share


def test_estimates_are_right_beside_clients_that_never_pause() -> None:
    """In the middle of a run: its start teaches, and at its end nobody comes any more."""
    every: list[Request] = []
    rng = random.Random(1)
    for _ in range(8):
        chain = [Request(0.0, rng.randint(4, 50), size=rng.choice(MIXED)) for _ in range(25)]
        for one, following in itertools.pairwise(chain):
            one.then = following
        every += chain
    Machine().run(every[::25])
    middle = sorted(every, key=lambda one: one.at)[40:140]
    assert _within_30_percent(middle) >= 0.95
    for one in middle:
        del one.etas[1:]
    assert _within_30_percent(middle) >= 0.95, "right after the fifth step"


def _within_30_percent(requests: Iterable[Request]) -> float:
    """Return the share of the estimates."""
    errors = []
    for one in requests:
        assert one.ended is not None
        errors += [abs(eta / (one.ended - at) - 1) for at, eta in one.etas]
    return float(np.mean([error <= 0.3 for error in errors]))


def _poisson(load: float, seed: int = 1, count: int = 300) -> list[Request]:
    """Return arrivals at a multiple of what one at a time can serve."""
    rng, at, requests = random.Random(seed), 0.0, []
    for _ in range(count):
        at += rng.expovariate(load / alone(Request(0.0, 27)))
        size = rng.choice(["square", "square", "tall"])
        requests.append(Request(at, rng.randint(4, 50), size=size))
    return requests


# -- the whole engine ---------------------------------------------------------------------------


def _wanted(steps: int, **options: Any) -> TextToImage:
    return TextToImage(prompt="sea", seed=1, num_inference_steps=steps, **options)


def _latencies(engine: VirtualEngine, count: int, steps: int) -> list[float]:
    """Return the seconds of the small caller's requests, sent one after the other from 0.3 s on."""
    sent: list[Ticket] = []

    def send() -> None:
        sent.append(engine.submit(_wanted(steps), caller=SMALL))
        if len(sent) < count:
            sent[-1].future.add_done_callback(lambda _: engine.after(0.05, send))

    engine.after(0.3, send)
    engine.run(lambda: len(sent) == count and sent[-1].future.done())
    return [engine.latency(ticket) for ticket in sent]


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("options", [{}, {"width": 96}])
def test_a_flood_costs_another_caller_of_the_engine_a_doubling_and_a_step(
    tiny_model: Callable[[str], Path], steps: int, options: dict[str, int]
) -> None:
    """Encoding and decoding count, and the flood has begun before the small caller comes."""
    folder = tiny_model("sd1")
    (solo,) = _latencies(VirtualEngine(folder), 1, steps)
    engine = VirtualEngine(folder)
    for _ in range(80):
        engine.submit(_wanted(steps, **options), caller=FLOODER)
    area = 1.5 if options else 1.0
    bound = DOUBLING * solo + virtual.STEP_S + virtual.LIMIT * virtual.ROW_S * area
    assert max(_latencies(engine, 4, steps)) <= bound


@pytest.mark.parametrize("jobs", [1, 4])
def test_short_requests_stay_short_beside_long_ones_in_the_engine(
    tiny_model: Callable[[str], Path], jobs: int
) -> None:
    folder = tiny_model("sd1")
    (solo,) = _latencies(VirtualEngine(folder), 1, 4)
    engine = VirtualEngine(folder)
    for _ in range(jobs):
        engine.submit(_wanted(150, num_images_per_prompt=4), caller=SMALL)
    assert np.percentile(_latencies(engine, 20, 4), 95) <= 3.0 * solo


def test_nobody_pays_for_what_was_enlarged_while_nobody_else_came(
    tiny_model: Callable[[str], Path],
) -> None:
    """Ten minutes of an idle machine cost nobody anything; then another caller floods."""
    folder = tiny_model("sd1")
    (solo,) = _latencies(VirtualEngine(folder), 1, 4)
    engine = VirtualEngine(folder)
    engine.enlarge(600, SMALL)
    for _ in range(80):
        engine.submit(_wanted(20), caller=FLOODER)
    bound = DOUBLING * solo + virtual.STEP_S + virtual.LIMIT * virtual.ROW_S
    assert max(_latencies(engine, 4, 4)) <= bound
