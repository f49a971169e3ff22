"""The worker's counters, for Prometheus."""

from __future__ import annotations

from typing import Any


class Metrics:
    """Counters of the queue's side; the engine's own are beside them."""

    def __init__(self, registry: Any = None) -> None:
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        registry = registry or REGISTRY
        self.tasks: Any = Counter(
            "worker_tasks",
            "Deliveries by how they ended: completed, failed, cancelled, poison, retried, "
            "handed_back",
            ["outcome"],
            registry=registry,
        )
        self.seconds: Any = Histogram(
            "worker_task_seconds",
            "Seconds from delivery to end",
            ["outcome"],
            buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300),
            registry=registry,
        )
        self.in_flight: Any = Gauge("worker_tasks_in_flight", "Tasks in flight", registry=registry)

    def ended(self, outcome: str, seconds: float) -> None:
        """Count a delivery's end."""
        self.tasks.labels(outcome).inc()
        self.seconds.labels(outcome).observe(seconds)
