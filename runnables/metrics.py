"""What the service counts, for Prometheus: seconds by stage, batch sizes, refusals by reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Metrics:
    """Counters of one process. Made after the host has set up its Prometheus directory."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.stages: Any = Histogram(
            "sd_stage_seconds",
            "Seconds of one piece of work: a UNet call or a VAE decode",
            ["stage"],
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )
        self.rows: Any = Histogram(
            "sd_batch_rows", "UNet rows in a call", buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self.requests: Any = Counter(
            "sd_requests", "Requests ended, refusals included", ["task", "status"]
        )
        self.images: Any = Counter("sd_images", "Images drawn", ["finish_reason"])
        self.queue: Any = Gauge("sd_queue_depth", "Requests waiting", multiprocess_mode="livesum")
        self.active: Any = Gauge(
            "sd_active_rows", "Images being drawn", multiprocess_mode="livesum"
        )

    def observe(self, stage: str, seconds: float, rows: int) -> None:
        """The runnable's `observe` hook."""
        self.stages.labels(stage).observe(seconds)
        if stage == "denoise":
            self.rows.observe(rows)

    def ended(self, task: str, status: int, finish_reasons: Sequence[str] = ()) -> None:
        """A request's end: the HTTP status it maps to, and its images' finish reasons."""
        self.requests.labels(task, str(status)).inc()
        for reason in finish_reasons:
            self.images.labels(reason).inc()

    def load(self, waiting: int, active: int) -> None:
        """How busy the engine is now."""
        self.queue.set(waiting)
        self.active.set(active)
