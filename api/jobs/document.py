"""A job, or a synchronous request, as clients see it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from api.jobs.job import Job
from api.progress.record import Record
from runnables.ticket import Progress

#: what the store keeps of an image, and clients do not see: they have its URL
PRIVATE = {"file"}


def document(
    record: Record, progress: Progress | None = None, queue: tuple[int, float] = (0, 0.0)
) -> dict[str, Any]:
    """Return the JSON of a job, or of a synchronous request, which has fewer fields set.

    Args:
        progress: The progress, where this process works on it.
        queue: The number of jobs before it and their seconds of work, for a job that waits.
    """
    job = record if isinstance(record, Job) else Job(**vars(record))
    return {
        "id": job.id,
        "task": job.task,
        **_state(job, progress, queue),
        "priority": job.priority,
        "created_at": _time(job.created),
        "started_at": _time(job.started),
        "finished_at": _time(job.finished),
        "deadline_at": _time(job.expires),
        "parameters": job.parameters,
        "images": [_image(job, i, image) for i, image in enumerate(job.images)],
        "error": job.error,
        "webhook": job.webhook,
        "webhook_state": job.delivery,
        "webhook_error": job.webhook_error,
    }


def placed(found: dict[str, Any], prefix: str, query: str = "") -> dict[str, Any]:
    """Return a document whose images lie below a path or an address, as its reader sees them.

    Args:
        query: The query that opens the images, `?` and all.
    """
    images = [{**image, "url": prefix + image["url"] + query} for image in found["images"]]
    return {**found, "images": images}


def _state(job: Job, progress: Progress | None, queue: tuple[int, float]) -> dict[str, Any]:
    """Return state, step, steps, position and eta_s."""
    known: dict[str, Any] = {"state": job.state, "step": job.step, "steps": job.steps}
    if job.final:
        return {**known, "position": None, "eta_s": None}
    if progress is None:
        waits = job.state == "queued"
        eta = queue[1] + job.seconds if waits else None
        return {**known, "position": queue[0] if waits else None, "eta_s": _seconds(eta)}
    waits = progress.state == "queued"
    return {
        "state": "queued" if waits else "running",
        "step": progress.step,
        "steps": progress.steps or job.steps,
        "position": progress.position if waits else None,
        "eta_s": _seconds(progress.eta_s),
    }


def _image(job: Job, index: int, image: dict[str, Any]) -> dict[str, Any]:
    public = {name: value for name, value in image.items() if name not in PRIVATE}
    return {"url": f"/jobs/{job.id}/images/{index}", **public}


def _seconds(eta: float | None) -> float | None:
    return None if eta is None else round(eta, 2)


def _time(unix: float | None) -> str | None:
    """Return a time in ISO 8601, in UTC, with milliseconds."""
    if unix is None:
        return None
    text = datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
