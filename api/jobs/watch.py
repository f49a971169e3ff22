"""Metrics and traces of jobs."""

from __future__ import annotations

from typing import Any

from api.http import tracing
from api.http.keys import Keys
from api.jobs.job import Job
from api.progress.record import State
from runnables.metrics import Metrics
from runnables.ticket import Result


class Watch:
    """A counter of jobs and webhooks, and a tracer of jobs."""

    def __init__(self, metrics: Metrics | None, keys: Keys) -> None:
        self._metrics = metrics
        self._keys = keys

    def ended(
        self, job: Job, state: State, result: Result | None, error: dict[str, Any] | None
    ) -> None:
        """Count and trace a job that has ended, with its result or its error."""
        if self._metrics:
            self._metrics.job_ended(job.task, state)
            if job.started is not None:
                self._metrics.job_started(job.started - job.created)
            if result is not None:
                self._metrics.spent(result, self._keys.name(job.owner))
        tracing.finished(
            f"job {job.task}",
            job.trace,
            job.started or job.created,
            {"job.id": job.id, "job.state": state, "job.attempts": job.attempts},
            result.timings if result else {},
            str(error["error"]) if error else None,
        )

    def webhook(self, outcome: str) -> None:
        """Count a try to deliver a webhook: delivered, retried or given_up."""
        if self._metrics:
            self._metrics.webhook(outcome)
