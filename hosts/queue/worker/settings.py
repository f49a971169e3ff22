"""The worker's settings: every `WORKER_*` environment variable, declared once.

The model and the engine are set by `SD_*`, AWS's endpoints and credentials by AWS's own variables.
"""

from __future__ import annotations

import socket

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from runnables.environment import EnvironmentSettings


class WorkerSettings(EnvironmentSettings):
    """Read from the environment, or passed by name in tests."""

    model_config = SettingsConfigDict(env_prefix="WORKER_")

    queue_urls: str = Field(description="Comma-separated SQS queues, the most urgent first")
    dead_letter_url: str = Field(description="Queue for what is no task at all")
    topic_arn: str = Field(description="SNS topic of completion messages")
    bucket: str = Field(description="S3 bucket of results")
    input_buckets: str = Field(
        "", description="Comma-separated further buckets that input images may be read from"
    )
    in_flight: int = Field(
        0,
        ge=0,
        le=256,
        description="Tasks in flight at once; 0: what fills the engine's batch twice",
    )
    reserve: int = Field(
        2, ge=0, description="Tasks in flight beyond that from every queue but the last, if urgent"
    )
    visibility_s: int = Field(
        60, ge=6, le=43_200, description="A task of a dead worker comes back after so long"
    )
    attempts: int = Field(
        5,
        ge=1,
        le=100,
        description="Deliveries that fail before a task is given up; those that a stop or a spot "
        "notice hands back are not counted",
    )
    deliveries: int = Field(
        50, ge=1, le=900, description="Deliveries of all kinds before a task is given up"
    )
    backoff_s: int = Field(5, ge=0, le=900, description="First delay of a retry; doubles each time")
    grace_s: float = Field(
        100.0, ge=0, le=115, description="What a stop may take; AWS gives a spot instance 120 s"
    )
    poll_s: int = Field(20, ge=0, le=20, description="Length of a long poll")
    port: int = Field(8080, ge=0, description="/livez, /readyz, /metrics; 0: none")
    host: str = Field("0.0.0.0", description="Address of the same")
    sagemaker: bool = Field(
        False, description="Also announce in the form of SageMaker's asynchronous inference"
    )
    dynamic: bool = Field(
        False,
        description="Generate with the model that a task names, one of SD_MODELS or SD_MODELS_DIR; "
        "else every task gets SD_MODEL",
    )
    spot_notice: bool = Field(
        False, description="Watch the instance metadata for a spot interruption notice"
    )
    pod_cost: bool = Field(
        False, description="Mark this pod do-not-disrupt while it works (needs the RBAC of overlay)"
    )
    cloudwatch: str = Field(
        "",
        pattern="^([^/]+/[^/]+)?$",
        description="DEPLOYMENT/RUNTIME: tell CloudWatch figures under these names, every minute",
    )
    name: str = Field(default_factory=socket.gethostname, description="This worker in manifests")

    @property
    def queues(self) -> list[str]:
        """The queues' URLs."""
        return _split(self.queue_urls)

    @property
    def buckets(self) -> set[str]:
        """Buckets that input images may be read from."""
        return {self.bucket, *_split(self.input_buckets)}


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
