"""The life of one delivery, from its text to its end.

    read -> ended before? -> cancelled? -> given up? -> generate -> store -> announce -> delete
      |                                                   |
      not a task: to the dead-letter queue,               the task's fault: stored and announced
      with its reason                                     as failed; ours: back to the queue

The manifest is written with `If-None-Match`: of two workers with the same task, the first
one's result counts, and both announce that one. A message is deleted after its end was announced.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

from botocore.exceptions import BotoCoreError, ClientError
from opentelemetry.trace import SpanKind

from api.http import tracing
from api.webui import catalog, errors
from hosts.queue import keys
from hosts.queue.completion import Manifest, Status
from hosts.queue.messages import Task, from_queue
from hosts.queue.worker.announce import Announcer
from hosts.queue.worker.delivery import Delivery
from hosts.queue.worker.inputs import Reader
from hosts.queue.worker.metrics import Metrics
from hosts.queue.worker.settings import WorkerSettings
from hosts.queue.worker.store import Store
from runnables.errors import (
    Cancelled,
    ConfigurationError,
    GenerationFailed,
    InvalidInput,
    OverCapacity,
)
from runnables.images import files
from runnables.parameters import AnyParameters
from runnables.runnable import Runnable
from runnables.ticket import Inputs, Result, Ticket

logger = logging.getLogger(__name__)

DEADLINE_S = (
    3600.0  # nobody waits on a connection: the heartbeat keeps the task as long as it takes
)
RETRY_S = 1.0


class InFlight:
    """A delivery being worked on, by one thread."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.task: Task | None = None
        self.ticket: Ticket | None = None
        self.handed_back = False
        self.attempt = delivery.received

    def hand_back(self) -> None:
        """Stop work on it, and let another worker have it at once."""
        self.handed_back = True
        self.delivery.release()
        if self.ticket is not None:
            self.ticket.cancel()


@dataclass(eq=False)
class Lifecycle:
    """Takes deliveries to their end; `run` is called on a thread for each."""

    settings: WorkerSettings
    runnable: Runnable
    store: Store
    announcer: Announcer
    reader: Reader
    metrics: Metrics

    def run(self, current: InFlight) -> None:
        """Never raises: what goes wrong here brings the task back to the queue."""
        started, delivery = time.monotonic(), current.delivery
        try:
            about = {"messaging.system": "aws_sqs", "messaging.message.id": delivery.id}
            about |= tracing.local_root("SQS")
            with tracing.span("task", delivery.trace, SpanKind.CONSUMER, about):
                outcome = self._work(current)
        except Exception as error:
            outcome = self._retry(current, error)
        self.metrics.ended(outcome, time.monotonic() - started)

    def _work(self, current: InFlight) -> str:
        delivery = current.delivery
        try:
            current.task = task = from_queue(delivery.body)
        except InvalidInput as error:
            logger.error("message %s is not a task: %s", delivery.id, error.message)
            delivery.bury(self.settings.dead_letter_url, error.message)
            return "poison"
        current.attempt = self._attempt(delivery)
        manifest = self.store.manifest(task)
        if manifest is None:
            manifest = self.store.put_manifest(task, self._end_of(current, task))
        else:
            logger.info("task %s had ended: announced again", task.metadata.id)
        self.announcer.announce(task, manifest, delivery)
        self._finish(current, manifest)
        return manifest.status

    def _attempt(self, delivery: Delivery) -> int:
        """Count the deliveries so far, without those that were handed back."""
        if delivery.received <= self.settings.attempts:
            return delivery.received
        return delivery.received - self.store.excuses(delivery.id)

    def _given_up(self, current: InFlight) -> bool:
        settings = self.settings
        return (
            current.attempt > settings.attempts or current.delivery.received > settings.deliveries
        )

    def _end_of(self, current: InFlight, task: Task) -> Manifest:
        """Bring a task that has not ended to its end: its images, or what was wrong with it."""
        delivery = current.delivery
        if self._given_up(current):
            given_up = f"given up after {delivery.received - 1} deliveries"
            return self._manifest(task, delivery, "failed", error=given_up)
        try:
            return self._completed(current, task)
        except InvalidInput as error:
            return self._manifest(task, delivery, "failed", error=errors.message(error))
        except (GenerationFailed, ConfigurationError) as error:
            if current.attempt < self.settings.attempts:
                raise
            return self._manifest(task, delivery, "failed", error=error.message)
        except Cancelled as error:
            if current.handed_back:
                raise
            return self._manifest(task, delivery, "cancelled", error=error.message)

    def _completed(self, current: InFlight, task: Task) -> Manifest:
        if self.store.is_cancelled(task):
            raise Cancelled("cancelled before it was started")
        every = self.reader.of(task)
        parameters = self._parameters(task, current.delivery)
        started = time.monotonic()
        results = [_result(current, self.runnable, parameters, inputs) for inputs in every]
        result = _merged(results)
        tracing.stages(result.timings, time.monotonic() - started)
        self.metrics.spent(result)
        return self._stored(task, current.delivery, result)

    def _parameters(self, task: Task, delivery: Delivery) -> AnyParameters:
        words = [one["name"] for one in self.runnable.listed("embeddings")]
        model = task.model if self.settings.dynamic else None
        native = catalog.described(self.runnable.models(), model)
        parameters = task.parameters(words, prediction=native.get("prediction", "epsilon"))
        changed: dict[str, object] = {"priority": "high" if delivery.urgent else "normal"}
        changed["deadline_s"] = DEADLINE_S
        if model is not None:
            changed["model"] = model
        return parameters.model_copy(update=changed)

    def _stored(self, task: Task, delivery: Delivery, result: Result) -> Manifest:
        """Store every image; returns the manifest that names them."""
        trace = {"traceparent": value} if (value := tracing.traceparent()) else {}
        started, urls = time.perf_counter(), []
        for number, image in enumerate(result.images):
            alone = replace(result, images=(image,))
            data = files.encode(alone, "png", self.runnable.settings)
            urls.append(self.store.put_image(task, number, data, trace))
        timings = {**result.timings, "store": time.perf_counter() - started}
        waited = max(0.0, time.time() - delivery.sent - sum(timings.values()))
        return self._manifest(
            task,
            delivery,
            "completed",
            image_url=urls,
            seeds=[image.seed for image in result.images if image.seed is not None],
            finish_reasons=[image.finish_reason for image in result.images],
            parameters=result.parameters.model_dump(exclude_none=True),
            timings={name: round(s, 4) for name, s in {"waited": waited, **timings}.items()},
        )

    def _manifest(self, task: Task, delivery: Delivery, status: Status, **more: object) -> Manifest:
        return Manifest.model_validate(
            {
                "id": task.metadata.id,
                "runtime": task.metadata.runtime,
                "status": status,
                "output_url": self.store.url(keys.manifest(task)),
                "attempt": delivery.received,
                "worker": self.settings.name,
                "traceparent": tracing.traceparent(),
                **more,
            }
        )

    def _finish(self, current: InFlight, manifest: Manifest) -> None:
        """Take it out of the queue; one that was given up stays among the dead letters."""
        delivery = current.delivery
        if manifest.status == "failed" and self._given_up(current):
            delivery.bury(self.settings.dead_letter_url, manifest.error or "given up")
        else:
            delivery.delete()

    def excuse(self, delivery: Delivery) -> None:
        """A delivery that was handed back is none of the task's attempts."""
        try:
            self.store.excuse(delivery.id, delivery.received)
        except (BotoCoreError, ClientError) as error:
            logger.warning("message %s counts as tried: %s", delivery.id, error)

    def _retry(self, current: InFlight, error: Exception) -> str:
        """Have it tried again, here or elsewhere: what went wrong is not the task's fault."""
        delivery = current.delivery
        if current.handed_back:
            self.excuse(delivery)
            return "handed_back"
        delay = self.settings.backoff_s * 2 ** min(delivery.received - 1, 10)
        logger.warning("message %s, try %d: %s", delivery.id, delivery.received, error)
        delivery.release(delay)
        return "retried"


def _result(
    current: InFlight, runnable: Runnable, parameters: AnyParameters, inputs: Inputs
) -> Result:
    current.ticket = ticket = _submit(current, runnable, parameters, inputs)
    if current.handed_back:
        ticket.cancel()
    return ticket.future.result()


def _merged(results: list[Result]) -> Result:
    """The results of one task as one: its inputs were worked on with the same parameters."""
    first, *_ = results
    return replace(
        first,
        images=tuple(image for one in results for image in one.images),
        timings={stage: sum(one.timings[stage] for one in results) for stage in first.timings},
        cost_units=sum(one.cost_units for one in results),
    )


def _submit(
    current: InFlight, runnable: Runnable, parameters: AnyParameters, inputs: Inputs
) -> Ticket:
    """Wait here while the engine is full: handing the task back would cost it a delivery.

    Raises:
        Cancelled: it was handed back meanwhile.
    """
    while not current.handed_back:
        try:
            return runnable.submit(parameters, inputs)
        except OverCapacity:
            time.sleep(RETRY_S)
    raise Cancelled("handed back")
