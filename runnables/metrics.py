"""The service counts these for Prometheus; docs/observability.md says how to read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runnables.version import VERSION

if TYPE_CHECKING:
    from runnables.ticket import Load, Result

STEP_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
REQUEST_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
JOB_STATES = ("queued", "running")
CACHES = ("hit", "joined")
WEBHOOK_OUTCOMES = ("delivered", "retried", "given_up")


class Metrics:
    """These are one process's counters, made after the host has set up its Prometheus directory."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.stages: Any = Histogram(
            "sd_stage_seconds",
            "Seconds of one piece of work: text encode, denoiser call (a step), VAE decode, safety",
            ["stage"],
            buckets=STEP_BUCKETS,
        )
        self.rows: Any = Histogram("sd_batch_rows", "Denoiser rows in a call", buckets=ROW_BUCKETS)
        self.queue: Any = Gauge("sd_queue_depth", "Requests waiting", multiprocess_mode="livesum")
        self.active: Any = Gauge(
            "sd_active_rows", "Images being generated", multiprocess_mode="livesum"
        )
        self.share: Any = Gauge(
            "sd_batch_share",
            "Share of the usual batch size that memory allows, less than 1 after an out-of-memory",
            multiprocess_mode="livemin",
        )
        self.pending: Any = Gauge(
            "sd_queue_seconds",
            "Estimated seconds of work that is accepted and not finished",
            multiprocess_mode="livesum",
        )
        self.memory: Any = Gauge(
            "sd_memory_bytes",
            "Main memory of the process, and what the device (or the CPU's machine) has left",
            ["kind"],
            multiprocess_mode="livemax",
        )
        self.requests: Any = Counter(
            "sd_requests",
            "Requests ended, refusals included; 499 are those that were cancelled",
            ["task", "status", "key"],
        )
        self.request_stages: Any = Histogram(
            "sd_request_stage_seconds",
            "Seconds a request spent in each stage, waiting included",
            ["stage"],
            buckets=REQUEST_BUCKETS,
        )
        self.images: Any = Counter(
            "sd_images", "Images generated", ["finish_reason", "model", "key"]
        )
        self.units: Any = Counter(
            "sd_cost_units",
            "Denoiser rows run for finished requests, in units of 512x512 pixels",
            ["task", "model", "key"],
        )
        self.repeats: Any = Counter(
            "sd_repeats", "Requests and jobs answered without generating", ["cache"]
        )
        for cache in CACHES:  # visible before the first one, so that rates are right
            self.repeats.labels(cache)
        self.build: Any = Gauge(
            "sd_build_info",
            "1, with what answers here as labels",
            ["version", "model", "device", "precision"],
            multiprocess_mode="livemax",
        )
        self._add_jobs()

    def _add_jobs(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.jobs: Any = Gauge(  # all processes look into the same store
            "sd_jobs", "Jobs that have not ended", ["state"], multiprocess_mode="livemax"
        )
        self.jobs_ended: Any = Counter("sd_jobs_ended", "Jobs ended", ["task", "state"])
        self.jobs_waited: Any = Histogram(
            "sd_job_wait_seconds", "From a job's acceptance to its start", buckets=REQUEST_BUCKETS
        )
        self.webhooks: Any = Counter("sd_webhooks", "Tries to deliver a webhook", ["outcome"])
        for outcome in WEBHOOK_OUTCOMES:  # visible before the first one, so that rates are right
            self.webhooks.labels(outcome)

    def observe(self, stage: str, seconds: float, rows: int) -> None:
        """Count work, as the runnable's `observe` hook."""
        self.stages.labels(stage).observe(seconds)
        if stage == "denoise":
            self.rows.observe(rows)

    def ended(self, task: str, status: int, key: str) -> None:
        """Count a request's end: the HTTP status it maps to, and the name of its key or ""."""
        self.requests.labels(task, str(status), key).inc()

    def spent(self, result: Result, key: str) -> None:
        """Count what a finished request or job took, and its images."""
        if result.cache:  # it took nothing, and no image was generated
            self.repeats.labels(result.cache).inc()
            return
        for stage, seconds in result.timings.items():
            self.request_stages.labels(stage).observe(seconds)
        model = result.parameters.model or ""
        self.units.labels(result.parameters.task, model, key).inc(result.cost_units)
        for image in result.images:
            self.images.labels(image.finish_reason, model, key).inc()

    def job_ended(self, task: str, state: str) -> None:
        """Count a job's end."""
        self.jobs_ended.labels(task, state).inc()

    def job_started(self, waited_s: float) -> None:
        """Count a job that goes to the engine for the first time."""
        self.jobs_waited.observe(waited_s)

    def webhook(self, outcome: str) -> None:
        """Count a try to deliver a webhook: one of WEBHOOK_OUTCOMES."""
        self.webhooks.labels(outcome).inc()

    def started(self, model: Mapping[str, Any]) -> None:
        """Say what answers: the version, and the default model as the runnable describes it."""
        self.build.labels(VERSION, model["name"], model["device"], model["precision"]).set(1)

    def load(self, load: Load) -> None:
        """Set how busy the engine is now."""
        self.queue.set(load.waiting)
        self.active.set(load.active)
        self.share.set(load.batch_share)
        self.pending.set(load.pending_s)

    def memory_used(self, process: int, free: float) -> None:
        """Set the bytes of this process, and those that the device has left where it is known."""
        self.memory.labels("process").set(process)
        if math.isfinite(free):
            self.memory.labels("free").set(free)

    def waiting_jobs(self, counts: Mapping[str, int]) -> None:
        """Set the jobs by state now: those of JOB_STATES."""
        for state, count in counts.items():
            self.jobs.labels(state).set(count)
