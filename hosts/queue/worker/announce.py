"""Completion messages on SNS."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hosts.queue import completion
from hosts.queue.completion import Manifest
from hosts.queue.messages import Task
from hosts.queue.worker.delivery import Delivery


class Announcer:
    """Publishes to one topic; subscribers filter by the attributes `form`, `status`, `runtime`.

    Args:
        sagemaker: also in that form.
    """

    def __init__(self, sns: Any, topic: str, *, sagemaker: bool = False) -> None:
        self._sns, self._topic, self._sagemaker = sns, topic, sagemaker

    def announce(self, task: Task, manifest: Manifest, delivery: Delivery) -> None:
        """Publish a task's end."""
        self._publish(completion.message(task, manifest), task.form, manifest, delivery)
        if self._sagemaker:
            sent = datetime.fromtimestamp(delivery.sent, UTC).isoformat(timespec="milliseconds")
            region = self._topic.split(":")[3]
            message = completion.sagemaker(task, manifest, region=region, sent=sent)
            self._publish(message, "sagemaker", manifest, delivery)

    def _publish(
        self, message: dict[str, Any], form: str, manifest: Manifest, delivery: Delivery
    ) -> None:
        # subscribers go on from the worker's span
        trace = {"traceparent": manifest.traceparent} if manifest.traceparent else delivery.trace
        about = {"form": form, "status": manifest.status, "runtime": manifest.runtime}
        self._sns.publish(
            TopicArn=self._topic,
            Message=json.dumps(message),
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value}
                for name, value in {**about, **trace}.items()
            },
        )
