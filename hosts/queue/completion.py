"""A task's end: the manifest in the bucket, and the messages that announce it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hosts.queue.messages import Task

Status = Literal["completed", "failed", "cancelled"]


class Manifest(BaseModel):
    """`{id}-{digest}.out`: what became of a task. Written once, never changed.

    Attributes:
        image_url: `s3://` addresses.
        timings: seconds by stage.
        error: for the caller, where the status is not `completed`.
        attempt: which delivery of the message it was.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    runtime: str
    status: Status
    image_url: list[str] = Field(default_factory=list)
    output_url: str
    seeds: list[int] = Field(default_factory=list)
    finish_reasons: list[str] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(default_factory=dict)
    timings: dict[str, float] = Field(default_factory=dict)
    error: str | None = None
    attempt: int = 1
    worker: str = ""
    traceparent: str | None = None
    finished: str = Field(default_factory=lambda: _now())

    @property
    def result(self) -> bool:
        """True when there are images."""
        return self.status == "completed"


def message(task: Task, manifest: Manifest) -> dict[str, Any]:
    """The completion message in the form the task came in."""
    return (_older if task.form == "v1alpha1" else _newer)(task, manifest)


def _newer(task: Task, manifest: Manifest) -> dict[str, Any]:
    message = {
        "id": manifest.id,
        "result": manifest.result,
        "status": manifest.status,
        "runtime": manifest.runtime,
        "image_url": manifest.image_url,
        "output_url": manifest.output_url,
        "context": task.metadata.context if task.metadata.context is not None else {},
    }
    return message if manifest.error is None else {**message, "error": manifest.error}


def _older(task: Task, manifest: Manifest) -> dict[str, Any]:
    return {
        "images": [""],
        "parameters": {
            "id_task": manifest.id,
            "status": int(manifest.result),
            "image_url": ",".join(manifest.image_url),
            "output_url": manifest.output_url,
            "seed": ",".join(map(str, manifest.seeds)),
            "error_msg": manifest.error or "",
        },
        "info": "",
    }


def sagemaker(task: Task, manifest: Manifest, *, region: str, sent: str) -> dict[str, Any]:
    """The announcement in the form of Amazon SageMaker's asynchronous inference.

    Args:
        sent: when the task was sent (ISO 8601).
    """
    message: dict[str, Any] = {
        "awsRegion": region,
        "eventTime": manifest.finished,
        "receivedTime": sent,
        "invocationStatus": "Completed" if manifest.result else "Failed",
        "requestParameters": {
            "endpointName": manifest.runtime,
            "inputLocation": next(iter(task.content.links()), ""),
        },
        "inferenceId": manifest.id,
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    if manifest.result:
        message["responseParameters"] = {
            "contentType": "application/json",
            "outputLocation": manifest.output_url,
        }
    else:
        message["failureReason"] = manifest.error or ""
    return message


def load(data: bytes) -> Manifest:
    """A stored manifest."""
    return Manifest.model_validate(json.loads(data))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
