"""`python -m benchmarks.simulation` simulates the queue beyond one machine, event by event.

Arrivals, KEDA's polling, starting nodes, loading images and models, spot interruptions and the
engine's batches are simulated with SimPy; no AWS is called. The figures depend on `Assumptions`,
each of which names its source; measure your own and pass them in.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import simpy

from hosts.queue.local.workers import ROOT

IMAGES = ROOT / "docs" / "images"


@dataclass(frozen=True)
class Assumptions:
    """The simulation assumes these seconds, dollars and counts.

    Attributes:
        steps: denoising steps of a task.
        step_s, row_s: a step of b images takes step_s + b * row_s. The default is 1.5 s for 16
            steps of one image (reference system, 512x512 on a g5.xlarge) and twice the throughput
            in batches of 8 (this engine's ratio on a CPU; not measured on a GPU).
        batch: images per step at most; 1 is one task at a time.
        in_flight: tasks that a worker takes at once.
        node_s: a new node, uniform between the two (reference system: 20 to 40 s).
        image_s: container image on a new node: from a snapshot, or some 60 s of pulling.
        model_s: model load and warm-up.
        poll_s, per_replica, most, cooldown_s: KEDA's pollingInterval, queueLength, maxReplicaCount,
            cooldownPeriod.
        interruptions: of a spot node, per hour.
        noticed: share of them with a notice, whose tasks are returned at once; the tasks of the
            others come back after visibility_s.
        price: on-demand dollars per hour (g5.xlarge); spot_price is the share of it that spot costs
            (reference system: 64 to 70% saved).
    """

    steps: int = 16
    step_s: float = 0.054
    row_s: float = 0.040
    batch: int = 8
    in_flight: int = 16
    node_s: tuple[float, float] = (20.0, 40.0)
    image_s: float = 5.0
    model_s: float = 15.0
    poll_s: float = 5.0
    per_replica: int = 10
    most: int = 20
    cooldown_s: float = 60.0
    interruptions: float = 0.05
    noticed: float = 0.95
    visibility_s: float = 60.0
    price: float = 1.006
    spot_price: float = 0.33


@dataclass(eq=False)
class Task:
    """A task has the time when it came, the steps that are left, and the time when it ended."""

    arrived: float
    left: int
    ended: float | None = None


@dataclass
class Outcome:
    """An outcome has latencies in seconds, in the order of completion, and node-seconds."""

    latencies: list[float] = field(default_factory=list)
    node_s: float = 0.0
    interrupted: int = 0
    peak: int = 0
    assumed: Assumptions = field(default_factory=Assumptions)

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies; `share` is from 0 to 1."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    @property
    def dollars(self) -> float:
        """Return the dollars of a thousand images, all on spot."""
        price = self.assumed.price * self.assumed.spot_price / 3600
        return 1000 * self.node_s * price / max(1, len(self.latencies))


class Cluster:
    """A cluster has the queue, and the workers that KEDA and Karpenter start for it."""

    def __init__(self, assumed: Assumptions, seed: int) -> None:
        self.a = assumed
        self.env = simpy.Environment()
        self.rng = random.Random(seed)
        self.waiting: deque[Task] = deque()
        self.held = 0
        self.open = 0  # tasks that have not ended
        self.replicas = 0
        self.retire = 0  # workers that are to go when they are idle
        self.outcome = Outcome(assumed=assumed)
        self.arriving = True

    def run(self, rate: float, burst_s: float) -> Outcome:
        """Run a burst of so many tasks per second, until the cluster is empty again."""
        self.env.process(self._arrive(rate, burst_s))
        self.env.process(self._scale())
        self.env.run()
        return self.outcome

    @property
    def done(self) -> bool:
        """Return whether no task comes, waits or is generated any more."""
        return not self.arriving and self.open == 0

    def _arrive(self, rate: float, burst_s: float) -> Iterator[Any]:
        while self.env.now < burst_s:
            yield self.env.timeout(self.rng.expovariate(rate))
            self.waiting.append(Task(self.env.now, self.a.steps))
            self.open += 1
        self.arriving = False

    def _scale(self) -> Iterator[Any]:
        """Scale as KEDA does: replicas = tasks, those in flight included, over the target.

        Replicas are added at once.
        """
        quiet = 0.0
        while True:
            tasks = len(self.waiting) + self.held
            wanted = min(self.a.most, math.ceil(tasks / self.a.per_replica))
            while self.replicas - self.retire < wanted:
                self._grow()
            quiet = quiet + self.a.poll_s if tasks == 0 else 0.0
            if quiet >= self.a.cooldown_s:
                self.retire = self.replicas
            self.outcome.peak = max(self.outcome.peak, self.replicas)
            if self.done and self.replicas == 0:
                return
            yield self.env.timeout(self.a.poll_s)

    def _grow(self) -> None:
        if self.retire:
            self.retire -= 1
            return
        self.replicas += 1
        self.env.process(self._worker())

    def _worker(self) -> Iterator[Any]:
        """Start a node, work, and end it when it is idle or interrupted."""
        begun = self.env.now
        yield self.env.timeout(self.rng.uniform(*self.a.node_s) + self.a.image_s + self.a.model_s)
        rate = self.a.interruptions / 3600
        end = self.env.now + self.rng.expovariate(rate) if rate else math.inf
        batch: list[Task] = []
        while self.env.now < end and not (self.retire and not batch):
            self._fill(batch)
            if batch:
                yield from self._step(batch)
            else:
                yield self.env.timeout(0.1)
        self.retire -= self.env.now < end
        self.replicas -= 1
        self.outcome.node_s += self.env.now - begun
        if batch:
            self.env.process(self._interrupted(batch))

    def _fill(self, batch: list[Task]) -> None:
        while self.waiting and len(batch) < self.a.in_flight:
            batch.append(self.waiting.popleft())
            self.held += 1

    def _step(self, batch: list[Task]) -> Iterator[Any]:
        generated = batch[: self.a.batch]
        yield self.env.timeout(self.a.step_s + self.a.row_s * len(generated))
        for task in generated:
            task.left -= 1
        for task in [task for task in generated if task.left == 0]:
            batch.remove(task)
            self.held -= 1
            self.open -= 1
            self.outcome.latencies.append(self.env.now - task.arrived)

    def _interrupted(self, batch: list[Task]) -> Iterator[Any]:
        """Start begun tasks again: at once where there was a notice."""
        self.outcome.interrupted += 1
        if self.rng.random() > self.a.noticed:
            yield self.env.timeout(self.a.visibility_s)
        for task in batch:
            task.left = self.a.steps
            self.waiting.appendleft(task)
        self.held -= len(batch)
        yield self.env.timeout(0)


def simulate(assumed: Assumptions, rate: float, burst_s: float = 60.0, seed: int = 0) -> Outcome:
    """Simulate a burst of `rate` tasks per second for `burst_s` on an empty cluster."""
    return Cluster(assumed, seed).run(rate, burst_s)


RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
REPLICAS = (5, 10, 20, 50, 100)
BASE = Assumptions()
VARIANTS = {
    "as in the overlay": BASE,
    "one task at a time": replace(BASE, batch=1, in_flight=1),
    "image pulled, not from a snapshot": replace(BASE, image_s=60.0),
    "target of 2 tasks per replica": replace(BASE, per_replica=2),
    "target of 40 tasks per replica": replace(BASE, per_replica=40),
    "KEDA polls every 30 s": replace(BASE, poll_s=30.0),
    "cooldown of 300 s": replace(BASE, cooldown_s=300.0),
    "20 interruptions per hour and node": replace(BASE, interruptions=20.0),
}


def table(rate: float) -> Iterator[str]:
    """Yield a table of what each setting does to a burst of this rate."""
    yield "| settings | p50 s | p95 s | $ per 1,000 | most replicas | interrupted |"
    yield "|---|---|---|---|---|---|"
    for name, assumed in VARIANTS.items():
        out = simulate(assumed, rate)
        yield (
            f"| {name} | {out.percentile(0.5):.0f} | {out.percentile(0.95):.0f} "
            f"| {out.dollars:.2f} | {out.peak} | {out.interrupted} |"
        )


def plot(folder: Path) -> None:
    """Plot latency and cost by burst rate, with one line per limit of replicas."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    outcomes = {
        most: [simulate(replace(BASE, most=most), rate) for rate in RATES] for most in REPLICAS
    }
    figures = (
        ("queue-latency.png", "p95 latency, s", lambda out: out.percentile(0.95)),
        ("queue-cost.png", "$ per 1,000 images, spot", lambda out: out.dollars),
    )
    for name, label, value in figures:
        figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
        for most, found in outcomes.items():
            axes.plot(RATES, [value(out) for out in found], "o-", label=f"{most} replicas at most")
        axes.set(xscale="log", yscale="log", xlabel="tasks per second, for 60 s", ylabel=label)
        axes.legend()
        figure.savefig(folder / name, dpi=110)
        pyplot.close(figure)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument(
        "--rate", type=float, default=20, help="tasks per second in the table's burst"
    )
    parser.add_argument("--plots", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    for line in table(arguments.rate):
        print(line, flush=True)
    plot(arguments.plots)
    print(f"plots are in {arguments.plots}")


if __name__ == "__main__":
    main()
