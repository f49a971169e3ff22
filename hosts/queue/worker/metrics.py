"""The worker's counters, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runnables.metrics import Metrics as EngineMetrics
    from runnables.ticket import Result


class Metrics:
    """Counters of the queue's side.

    Args:
        registry: where they are; default: the process's own.
        engine: the engine's own counters, which are told what each task took.
    """

    def __init__(self, registry: Any = None, engine: EngineMetrics | None = None) -> None:
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        registry = registry or REGISTRY
        self.engine = engine
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

    def spent(self, result: Result) -> None:
        """Count the images of a finished task, and what they took."""
        if self.engine:
            self.engine.spent(result, key="")

    def ended(self, outcome: str, seconds: float) -> None:
        """Count a delivery's end."""
        self.tasks.labels(outcome).inc()
        self.seconds.labels(outcome).observe(seconds)
