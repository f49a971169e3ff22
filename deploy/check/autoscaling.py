"""A fleet of pods under load, scaled as its ScaledObject says: a simulation, second by second.

The autoscaler is Kubernetes' (the algorithm of HorizontalPodAutoscaler v2 for an external metric
with an average value): every 15 s the metric's sum divided by the target, unchanged within a tenth,
then the stabilization windows and the policies of `behavior`. A pod runs a batch of requests at
once, and each takes the same time; the load balancer picks the pod with the fewest; a new pod takes
minutes to start; one that is taken away gets no more requests and finishes those that it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]
SYNC_S = 15
TOLERANCE = 0.1


@dataclass(eq=False)
class Worker:
    """A pod: when it can take requests, and the seconds left of each request in its batch."""

    ready: int
    active: list[int] = field(default_factory=list)
    waiting: int = 0

    @property
    def load(self) -> int:
        """Requests that it has."""
        return self.waiting + len(self.active)

    def step(self, batch: int, takes_s: int) -> None:
        """One second of work."""
        self.active = [left - 1 for left in self.active if left > 1]
        while self.waiting and len(self.active) < batch:
            self.waiting -= 1
            self.active.append(takes_s)


class Autoscaler:
    """The pods that a ScaledObject wants, from one reading of the metrics after another."""

    def __init__(self, scaled: Document) -> None:
        spec = scaled["spec"]
        self.least, self.most = int(spec["minReplicaCount"]), int(spec["maxReplicaCount"])
        advanced = spec["advanced"]
        self.behavior = advanced["horizontalPodAutoscalerConfig"]["behavior"]
        self.formula = advanced.get("scalingModifiers", {}).get("formula", "waiting")
        first = spec["triggers"][0]["metadata"]["targetValue"]
        self.target = float(advanced.get("scalingModifiers", {}).get("target", first))
        self._wanted: list[tuple[int, int]] = []
        self._had: list[tuple[int, int]] = []

    def decide(self, now: int, pods: int, waiting: int, active: int) -> int:
        """Return the number of pods that there should be."""
        parts = [part.strip() for part in self.formula.split("+")]
        total = sum({"waiting": waiting, "active": active}[part] for part in parts)
        near = abs(1 - total / (self.target * pods)) <= TOLERANCE
        wanted = pods if near else math.ceil(total / self.target)
        wanted = min(max(wanted, self.least), self.most)
        self._wanted.append((now, wanted))
        self._had.append((now, pods))
        up, down = self.behavior["scaleUp"], self.behavior["scaleDown"]
        highest = max(self._within(self._wanted, now, down["stabilizationWindowSeconds"]))
        lowest = min(self._within(self._wanted, now, up["stabilizationWindowSeconds"]))
        if lowest > pods:
            limit = max(self._limit(one, now, pods, +1) for one in up["policies"])
            return max(pods, min(lowest, limit))
        if highest < pods:
            limit = min(self._limit(one, now, pods, -1) for one in down["policies"])
            return min(pods, max(highest, limit))
        return pods

    def _limit(self, policy: Document, now: int, pods: int, sign: int) -> int:
        """The number of pods that a policy lets be reached from those at its period's start."""
        start = self._within(self._had, now, policy["periodSeconds"])[0]
        if policy["type"] == "Pods":
            return start + sign * int(policy["value"])
        return math.ceil(start * (1 + sign * int(policy["value"]) / 100))

    @staticmethod
    def _within(history: list[tuple[int, int]], now: int, window: int) -> list[int]:
        return [value for when, value in history if when > now - max(window, 1)]


@dataclass
class Run:
    """Pods and waiting requests at every second, and when pods were taken away while busy."""

    pods: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    busy_removed: list[int] = field(default_factory=list)


def simulate(
    scaled: Document,
    rate: Callable[[int], float],
    *,
    seconds: int,
    pods: int,
    batch: int = 4,
    takes_s: int = 10,
    start_s: int = 150,
) -> Run:
    """Requests arrive evenly at `rate(second)` a second.

    A pod counts as taken away while busy where the others have no room for the requests it has.
    """
    fleet: list[Worker] = [Worker(0) for _ in range(pods)]
    leaving: list[Worker] = []
    autoscaler, run, owed = Autoscaler(scaled), Run(), 0.0
    for now in range(seconds):
        owed += rate(now)
        ready = [one for one in fleet if one.ready <= now]
        while owed >= 1:
            owed -= 1
            min(ready, key=lambda one: one.load).waiting += 1
        for one in [*fleet, *leaving]:
            one.step(batch, takes_s)
        if now and now % SYNC_S == 0:
            ready = [one for one in fleet if one.ready <= now]
            waiting = sum(one.waiting for one in ready)
            active = sum(len(one.active) for one in ready)
            wanted = autoscaler.decide(now, len(fleet), waiting, active)
            fleet += [Worker(now + start_s) for _ in range(wanted - len(fleet))]
            while len(fleet) > wanted:  # those that are not ready go first, then the youngest
                gone = fleet.pop()
                leaving.append(gone)
                room = sum(batch - len(one.active) for one in fleet if one.ready <= now)
                if gone.load + waiting > room:
                    run.busy_removed.append(now)
        run.pods.append(len(fleet))
        run.waiting.append(sum(one.waiting for one in fleet))
    return run
