"""Throughput and latency are measured under one client, equal clients, and mixed load."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import figures
from benchmarks.arms import ARMS, Arm
from benchmarks.figures import seconds_of, spread
from runnables.parameters import TextToImage

PROMPT = "View of a cyberpunk city"
PROMPTS = (PROMPT, "a cat", "a red apple on a table beside a blue cup, " * 5)
SAMPLERS = ("ddim", "euler", "euler_a", "dpmpp_2m", "unipc", "dpmpp_2m_karras")
DEADLINE = 4  # times the median latency of one client alone
BASELINE = "one at a time"
WARM_UP = 1000  # seed of the mixed requests that are not measured


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
    """Return requests of 4 to 50 steps, with and without guidance, of several sizes and prompts.

    No prompt has more than 77 tokens, because diffusers would cut it.
    """
    rng = random.Random(seed)
    sizes = [(128, 128)] * 4 + [(96, 128), (128, 96)]
    return [
        _request(
            i,
            rng.randint(4, 50),
            rng.choice(SAMPLERS),
            rng.choice((1.0, 3.0, 4.0, 7.5)),
            rng.choice(sizes),
            rng.choice(PROMPTS),
        )
        for i in range(count)
    ]


def _request(
    seed: int,
    steps: int,
    sampler: str,
    guidance: float,
    size: tuple[int, int],
    prompt: str = PROMPT,
) -> TextToImage:
    return TextToImage(
        prompt=prompt,
        seed=seed,
        num_inference_steps=steps,
        scheduler=sampler,
        guidance_scale=guidance,
        height=size[0],
        width=size[1],
    )


def closed(arm: Arm, requests: list[TextToImage], clients: int) -> Outcome:
    """Run clients that each send their next request when they have the image of the last."""
    latencies, seconds = figures.closed(
        lambda request: seconds_of(arm.submit(request).result), requests, clients
    )
    return Outcome(seconds, tuple(latencies))


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
    model: Path,
    *,
    requests: int,
    arrivals: int,
    loads: tuple[float, ...],
    rounds: int,
    arms: Sequence[str],
) -> Iterator[str]:
    """Run all workloads on the named arms, and yield the report's lines as they are known.

    Args:
        requests: of an arm and round, where clients wait for their image.
        arrivals: of an arm, where requests come at random times.
        loads: their rates, as shares of what one at a time can serve.
        rounds: in each of them all arms run one after the other.
    """
    made = [ARMS[name](model) for name in arms]
    try:
        for arm in made:  # what oneDNN compiles for a shape that is new is no cost later
            closed(arm, equal(3), 1)
            closed(arm, mixed(requests // 2, WARM_UP), 16)
        yield HEADER
        solo = _rounds(made, rounds, lambda arm, _: closed(arm, equal(max(requests // 6, 1)), 1))
        deadline = DEADLINE * _pooled(solo[BASELINE]).percentile(50)
        yield from _report("1 client, equal", solo, deadline)
        outcomes = _rounds(made, rounds, lambda arm, _: closed(arm, equal(requests), 16))
        yield from _report("16 clients, equal", outcomes, deadline)
        outcomes = _rounds(made, rounds, lambda arm, seed: closed(arm, mixed(requests, seed), 16))
        yield from _report("16 clients, mixed", outcomes, deadline)
        capacity = statistics.median(one.rate for one in outcomes[BASELINE])
        for load in loads:
            outcomes = {
                arm.name: [poisson(arm, mixed(arrivals, 99), load * capacity)] for arm in made
            }
            yield from _report(f"Poisson {load:.0%}, mixed", outcomes, deadline)
    finally:
        for arm in made:
            arm.close()


def _rounds(
    arms: list[Arm], rounds: int, run: Callable[[Arm, int], Outcome]
) -> dict[str, list[Outcome]]:
    """Return the outcomes of every arm, round by round."""
    outcomes: dict[str, list[Outcome]] = {arm.name: [] for arm in arms}
    for number in range(rounds):
        for arm in arms:
            outcomes[arm.name].append(run(arm, number))
    return outcomes


HEADER = (
    f"| workload | arm | images/s | ratio | p50 s | p95 s | p99 s | p95 ratio "
    f"| in {DEADLINE}x solo |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def _pooled(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the rounds of an arm as one."""
    latencies = [latency for one in outcomes for latency in one.latencies]
    return Outcome(sum(one.seconds for one in outcomes), tuple(latencies))


def _report(workload: str, outcomes: dict[str, list[Outcome]], deadline: float) -> list[str]:
    """Return a line for each arm; ratios are of the same round: their median, lowest, highest."""
    lines = []
    for name, rounds in outcomes.items():
        one, pairs = _pooled(rounds), list(zip(rounds, outcomes[BASELINE], strict=True))
        rates = [mine.rate / base.rate for mine, base in pairs]
        p95s = [mine.percentile(95) / base.percentile(95) for mine, base in pairs]
        lines.append(
            f"| {workload} | {name} | {one.rate:.2f} | {spread(rates)} "
            f"| {one.percentile(50):.2f} | {one.percentile(95):.2f} | {one.percentile(99):.2f} "
            f"| {spread(p95s)} | {one.within(deadline):.0%} |"
        )
    return lines
