"""`python -m benchmarks.simulation` simulates the queue beyond one machine, event by event.

Arrivals, KEDA, the autoscaler, nodes that Karpenter starts and takes away, loading images and
models, spot interruptions and the engine's batches are simulated with SimPy; no AWS is called. The
figures depend on `Assumptions`, each of which names its source; measure your own and pass them in.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import deque
from collections.abc import Generator, Iterator
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
        image_gb, pull_gb_s: the container image, and how fast a new node gets it. No source: 6 GB
            at 0.1 GB a second are the reference system's 60 s; from a snapshot it is 5 s.
        model_s: model load and warm-up.
        poll_s, per_replica, most, cooldown_s: KEDA's pollingInterval (which counts from none to one
            replica only), queueLength, maxReplicaCount, cooldownPeriod.
        consolidate_s, end_s: Karpenter takes a node that is empty for so long (consolidateAfter of
            the queue's pools), and it is paid for until it has ended (no source).
        spot_share: share of nodes that get spot capacity, the others are on demand (no source).
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
    image_gb: float = 6.0
    pull_gb_s: float = 0.1
    model_s: float = 15.0
    poll_s: float = 5.0
    per_replica: int = 10
    most: int = 20
    cooldown_s: float = 60.0
    consolidate_s: float = 60.0
    end_s: float = 30.0
    spot_share: float = 0.8
    interruptions: float = 0.05
    noticed: float = 0.95
    visibility_s: float = 60.0
    price: float = 1.006
    spot_price: float = 0.33

    @property
    def image_s(self) -> float:
        """Return the seconds until a new node has the image."""
        return self.image_gb / self.pull_gb_s


#: The autoscaler looks so often, keeps the most that was wanted for so long, and then takes at most
#: half of the replicas a minute; it adds 4 or three times as many as there are (components/queue).
SYNC_S, STABLE_S, SHRINK_S = 15.0, 120.0, 60.0


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
    spent: float = 0.0
    interrupted: int = 0
    peak: int = 0
    assumed: Assumptions = field(default_factory=Assumptions)

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies; `share` is from 0 to 1."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    @property
    def dollars(self) -> float:
        """Return the dollars of a thousand images."""
        return 1000 * self.spent / max(1, len(self.latencies))


@dataclass(eq=False)
class Node:
    """A node is paid for from its start, and is spot capacity or on demand."""

    begun: float
    spot: bool
    interrupted_at: float = math.inf
    empty_since: float | None = None


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
        self.nodes = 0
        self.empty: list[Node] = []
        self.outcome = Outcome(assumed=assumed)
        self.arriving = True

    def run(self, rate: float, burst_s: float) -> Outcome:
        """Run a burst of so many tasks per second, until the cluster is empty again."""
        self.env.process(self._arrive(rate, burst_s))
        self.env.process(self._activate())
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

    @property
    def _size(self) -> int:
        return self.replicas - self.retire

    @property
    def _over(self) -> bool:
        return self.done and self.nodes == 0

    def _activate(self) -> Iterator[Any]:
        """Act as KEDA: the first replica when there is a task, none after the cooldown."""
        quiet = 0.0
        while not self._over:
            busy = len(self.waiting) + self.held > 0
            quiet = 0.0 if busy else quiet + self.a.poll_s
            if busy and self._size == 0:
                self._resize(1)
            if quiet >= self.a.cooldown_s:
                self._resize(0)
            yield self.env.timeout(self.a.poll_s)

    def _scale(self) -> Iterator[Any]:
        """Act as the autoscaler: tasks, those in flight included, over the target."""
        recent: deque[int] = deque(maxlen=round(STABLE_S / SYNC_S))
        shrunk = -SHRINK_S
        while not self._over:
            yield self.env.timeout(SYNC_S)
            size, tasks = self._size, len(self.waiting) + self.held
            wanted = max(1, min(self.a.most, math.ceil(tasks / self.a.per_replica)))
            recent.append(wanted)
            if 0 < size < wanted:
                self._resize(min(wanted, max(size + 4, 4 * size)))
            elif size > max(recent) and self.env.now >= shrunk + SHRINK_S:
                self._resize(max(*recent, math.ceil(size / 2)))
                shrunk = self.env.now

    def _resize(self, size: int) -> None:
        while self._size > size:
            self.retire += 1
        while self._size < size:
            if self.retire:
                self.retire -= 1
            else:
                self.replicas += 1
                self.env.process(self._worker())
        self.outcome.peak = max(self.outcome.peak, self.replicas)

    def _worker(self) -> Iterator[Any]:
        """Work on an empty node or a new one, until idle and unwanted, or interrupted."""
        node = self.empty.pop() if self.empty else None
        if node is None:
            node = yield from self._node()
        yield self.env.timeout(self.a.model_s)
        batch: list[Task] = []
        while self.env.now < node.interrupted_at and not (self.retire and not batch):
            self._fill(batch)
            if batch:
                yield from self._step(batch)
            else:
                yield self.env.timeout(0.2)
        if self.env.now < node.interrupted_at:
            self.retire -= 1
            self.replicas -= 1
            self.env.process(self._consolidate(node))
            return
        self._end(node)
        self.env.process(self._interrupted(batch))
        self.env.process(self._worker())  # the deployment keeps its size

    def _node(self) -> Generator[Any, Any, Node]:
        node = Node(self.env.now, self.rng.random() < self.a.spot_share)
        self.nodes += 1
        yield self.env.timeout(self.rng.uniform(*self.a.node_s) + self.a.image_s)
        if node.spot and self.a.interruptions:
            node.interrupted_at = self.env.now + self.rng.expovariate(self.a.interruptions / 3600)
        return node

    def _consolidate(self, node: Node) -> Iterator[Any]:
        """Act as Karpenter, which takes a node that stays empty."""
        node.empty_since = since = self.env.now
        self.empty.append(node)
        yield self.env.timeout(self.a.consolidate_s)
        if node in self.empty and node.empty_since == since:
            self.empty.remove(node)
            yield self.env.timeout(self.a.end_s)
            self._end(node)

    def _end(self, node: Node) -> None:
        self.nodes -= 1
        seconds = self.env.now - node.begun
        self.outcome.node_s += seconds
        share = self.a.spot_price if node.spot else 1
        self.outcome.spent += seconds * self.a.price * share / 3600

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
TARGETS = (5, 10, 20)
BASE = Assumptions()
VARIANTS = {
    "as in the overlay": BASE,
    "one task at a time": replace(BASE, batch=1, in_flight=1),
    "image from a snapshot": replace(BASE, pull_gb_s=1.2),
    "image of 12 GB, a model inside": replace(BASE, image_gb=12),
    "target of 5 tasks per replica": replace(BASE, per_replica=5),
    "target of 40 tasks per replica": replace(BASE, per_replica=40),
    "KEDA polls every 30 s": replace(BASE, poll_s=30.0),
    "cooldown of 300 s": replace(BASE, cooldown_s=300.0),
    "empty nodes stay 5 minutes": replace(BASE, consolidate_s=300.0),
    "all on demand": replace(BASE, spot_share=0.0),
    "all on spot": replace(BASE, spot_share=1.0),
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


def recommended(limit_s: float) -> Iterator[str]:
    """Yield, for each rate, the cheapest settings whose p95 latency is below the limit.

    Where none is, the quickest are taken.
    """
    yield (
        "| tasks per second | replicas at most | tasks per replica "
        f"| p95 s (at most {limit_s:g}) | $ per 1,000 |"
    )
    yield "|---|---|---|---|---|"
    for rate in RATES:
        outcomes = [
            simulate(replace(BASE, most=most, per_replica=target), rate)
            for most in REPLICAS
            for target in TARGETS
        ]
        good = [out for out in outcomes if out.percentile(0.95) <= limit_s]
        best = (
            min(good, key=lambda out: out.dollars)
            if good
            else min(outcomes, key=lambda out: out.percentile(0.95))
        )
        yield (
            f"| {rate} | {best.assumed.most} | {best.assumed.per_replica} "
            f"| {best.percentile(0.95):.0f} | {best.dollars:.2f} |"
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
        ("queue-cost.png", "$ per 1,000 images", lambda out: out.dollars),
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
    parser.add_argument("--limit-s", type=float, default=180, help="p95 latency of the settings")
    parser.add_argument("--plots", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    for line in table(arguments.rate):
        print(line, flush=True)
    for line in recommended(arguments.limit_s):
        print(line, flush=True)
    plot(arguments.plots)
    print(f"plots are in {arguments.plots}")


if __name__ == "__main__":
    main()
