"""From a checked task to a message on the topic that its queue is subscribed to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind

from api.http import tracing
from hosts.queue import keys
from hosts.queue.bucket import put_once
from hosts.queue.front.settings import Settings
from hosts.queue.messages import MAX_BYTES, Task
from runnables.errors import Conflict, InvalidInput, PayloadTooLarge, UnknownName


class Front:
    """The front door around its two AWS clients."""

    def __init__(self, settings: Settings, sns: Any, s3: Any) -> None:
        self.settings = settings
        self.sns, self.s3 = sns, s3

    def accept(self, task: Task, *, key: str, trace: Mapping[str, str]) -> dict[str, Any]:
        """Claim the task's id, publish it, and say where its output will be.

        Args:
            key: id of the caller's API key.
            trace: trace context, as message attributes.

        Raises:
            UnknownName: no such runtime or model.
            PayloadTooLarge: over SNS's limit.
            Conflict: the id stands for another task.
        """
        self._check_route(task)
        message = task.message()
        attributes = _strings({**self._attributes(task, key), **trace})
        if _size(message, attributes) > MAX_BYTES:
            raise PayloadTooLarge(f"the task is larger than {MAX_BYTES} bytes", loc=("body",))
        self._claim(task)
        with tracing.aws_call("SNS", "Publish", SpanKind.PRODUCER):
            attributes |= _strings(tracing.carried())  # the worker goes on from this span
            self.sns.publish(
                TopicArn=self.settings.topic, Message=message, MessageAttributes=attributes
            )
        return self._reply(task)

    def location(self, prefix: str, id: str) -> str:
        """`s3://` address of a task's folder."""
        return f"s3://{self.settings.bucket}/{keys.folder(prefix, id)}"

    def _check_route(self, task: Task) -> None:
        """Refuse what no queue's filter would let through: the topic would drop it silently."""
        known, dynamic = self.settings.runtimes, self.settings.dynamic
        if task.form == "v1alpha1":
            if task.model not in known.values() and not dynamic:
                loc: tuple[str, ...] = ("alwayson_scripts", "sd_model_checkpoint")
                raise UnknownName(f"no runtime serves the model {task.model}", loc=loc)
            return
        runtime, loc = task.metadata.runtime, ("task", "metadata", "runtime")
        if runtime not in known and (not dynamic or runtime != dynamic):
            raise UnknownName(f"there is no runtime {runtime}", loc=loc)
        if runtime == dynamic and not task.model:
            raise InvalidInput("the dynamic runtime needs sd_model_checkpoint", loc=loc)
        if runtime in known and task.model not in (None, known[runtime]):
            raise UnknownName(f"{runtime} serves {known[runtime]}, not {task.model}", loc=loc)

    def _claim(self, task: Task) -> None:
        bucket, key = self.settings.bucket, keys.claim(task.metadata.prefix, task.metadata.id)
        claim = json.dumps({"manifest": keys.manifest(task), "digest": task.digest}).encode()
        if put_once(self.s3, bucket, key, claim, "application/json"):
            return
        stored = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        if json.loads(stored)["digest"] != task.digest:
            message = f"the id {task.metadata.id} was used for another task"
            raise Conflict(message, loc=("id",))

    def _attributes(self, task: Task, key: str) -> dict[str, str]:
        """Return the attributes that the queues' filter policies look at."""
        prefix = "priority_" if key in self.settings.priority_keys else ""
        if task.form == "v1alpha1":
            return {f"{prefix}sd_model_checkpoint": str(task.model)}
        return {f"{prefix}runtime": task.metadata.runtime}

    def _reply(self, task: Task) -> dict[str, Any]:
        one = task.metadata
        output = {"output_location": self.location(one.prefix, one.id)}
        if task.form == "v1alpha1":
            return {"id_task": one.id, "sd_model_checkpoint": task.model, **output}
        return {"id": one.id, "runtime": one.runtime, **output}


def _strings(values: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return values as attributes of a message."""
    return {name: {"DataType": "String", "StringValue": value} for name, value in values.items()}


def _size(message: str, attributes: Mapping[str, Mapping[str, str]]) -> int:
    """Return the bytes that SNS counts: those of the message, and of all about its attributes."""
    texts = [message, *attributes]
    texts += [text for attribute in attributes.values() for text in attribute.values()]
    return sum(len(text.encode()) for text in texts)
