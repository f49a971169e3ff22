"""Throughput and latency are measured under one client, equal clients, and mixed load."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.arms import ARMS, Arm
from runnables.parameters import TextToImage

SAMPLERS = ("ddim", "euler", "euler_a", "dpmpp_2m", "unipc", "dpmpp_2m_karras")
DEADLINE = 4  # times the median latency of one client alone
BASELINE = "one at a time"


@dataclass(frozen=True)
class Outcome:
    """An outcome is what one arm did with one workload, in seconds."""

    seconds: float
    latencies: tuple[float, ...]

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.latencies, share))

    def within(self, deadline: float) -> float:
        return float(np.mean([latency <= deadline for latency in self.latencies]))


def equal(count: int) -> list[TextToImage]:
    """Return the same request with different seeds."""
    return [_request(seed, 20, "dpmpp_2m", 4.0, (128, 128)) for seed in range(count)]


def mixed(count: int, seed: int = 0) -> list[TextToImage]:
    """Return requests of 4 to 50 steps, six samplers, three sizes, with and without guidance."""
    rng = random.Random(seed)
    sizes = [(128, 128)] * 4 + [(96, 128), (128, 96)]
    return [
        _request(
            i,
            rng.randint(4, 50),
            rng.choice(SAMPLERS),
            rng.choice((1.0, 3.0, 4.0, 7.5)),
            rng.choice(sizes),
        )
        for i in range(count)
    ]


def _request(
    seed: int, steps: int, sampler: str, guidance: float, size: tuple[int, int]
) -> TextToImage:
    return TextToImage(
        prompt="View of a cyberpunk city",
        seed=seed,
        num_inference_steps=steps,
        scheduler=sampler,
        guidance_scale=guidance,
        height=size[0],
        width=size[1],
    )


def closed(arm: Arm, requests: list[TextToImage], clients: int) -> Outcome:
    """Run clients that each send their next request when they have the image of the last."""

    def seconds(request: TextToImage) -> float:
        started = time.perf_counter()
        arm.submit(request).result()
        return time.perf_counter() - started

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        latencies = tuple(pool.map(seconds, requests))
    return Outcome(time.perf_counter() - started, latencies)


def poisson(arm: Arm, requests: list[TextToImage], rate: float, seed: int = 1) -> Outcome:
    """Send requests at random times, `rate` per second, whether or not the last ones are done."""
    rng, pending, latencies = random.Random(seed), [], []
    started = time.perf_counter()
    due = started
    for request in requests:
        due += rng.expovariate(rate)
        time.sleep(max(0.0, due - time.perf_counter()))
        future = arm.submit(request)
        future.add_done_callback(
            lambda _, sent=due: latencies.append(time.perf_counter() - sent)  # type: ignore[misc]
        )
        pending.append(future)
    for future in pending:
        future.result()
    return Outcome(time.perf_counter() - started, tuple(latencies))


def run(
    model: Path, *, requests: int, loads: tuple[float, ...], arms: Sequence[str]
) -> Iterator[str]:
    """Run all workloads on the named arms, and yield the report's lines as they are known."""
    yield from _run([ARMS[name](model) for name in arms], requests, loads)


def _run(arms: list[Arm], requests: int, loads: tuple[float, ...]) -> Iterator[str]:
    try:
        for arm in arms:  # warm up
            closed(arm, equal(3), 1)
        yield HEADER
        solo = {arm.name: closed(arm, equal(requests // 3), 1) for arm in arms}
        yield from _report("1 client, equal", solo, solo)
        yield from _report(
            "16 clients, equal", {a.name: closed(a, equal(requests), 16) for a in arms}, solo
        )
        saturated = {a.name: closed(a, mixed(requests), 16) for a in arms}
        yield from _report("16 clients, mixed", saturated, solo)
        capacity = saturated[BASELINE].rate
        for load in loads:
            outcomes = {a.name: poisson(a, mixed(requests, 2), load * capacity) for a in arms}
            yield from _report(f"Poisson {load:.0%}, mixed", outcomes, solo)
    finally:
        for arm in arms:
            arm.close()


HEADER = (
    f"| workload | arm | images/s | ratio | p50 s | p95 s | p99 s | p95 ratio "
    f"| in {DEADLINE}x solo |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def _report(workload: str, outcomes: dict[str, Outcome], solo: dict[str, Outcome]) -> list[str]:
    base = outcomes[BASELINE]
    deadline = DEADLINE * solo[BASELINE].percentile(50)
    return [
        f"| {workload} | {name} | {one.rate:.2f} | {one.rate / base.rate:.2f} "
        f"| {one.percentile(50):.2f} | {one.percentile(95):.2f} | {one.percentile(99):.2f} "
        f"| {one.percentile(95) / base.percentile(95):.2f} | {one.within(deadline):.0%} |"
        for name, one in outcomes.items()
    ]
