"""What happens to one delivery, from its text to its end.

    read -> ended before? -> cancelled? -> given up? -> draw -> store -> announce -> delete
      |                                                   |
      not a task: to the dead-letter queue,               the task's fault: stored and announced
      with its reason                                     as failed; ours: back to the queue

The manifest is written with `If-None-Match`: of two workers that draw the same task, the first
one's result counts, and both announce that one. A message is deleted after its end was announced.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from botocore.exceptions import BotoCoreError, ClientError
from opentelemetry.trace import Span

from hosts.queue import keys
from hosts.queue.completion import Manifest, Status
from hosts.queue.messages import Task, from_queue
from hosts.queue.worker import tracing
from hosts.queue.worker.announce import Announcer
from hosts.queue.worker.delivery import Delivery
from hosts.queue.worker.inputs import Reader
from hosts.queue.worker.metrics import Metrics
from hosts.queue.worker.models import Models
from hosts.queue.worker.settings import WorkerSettings
from hosts.queue.worker.store import Store
from runnables.errors import Cancelled, GenerationFailed, InvalidInput, OverCapacity
from runnables.images import files
from runnables.parameters import AnyParameters
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs, Result, Ticket

logger = logging.getLogger(__name__)

DEADLINE_S = (
    3600.0  # nobody waits on a connection: the heartbeat keeps the task as long as it takes
)
RETRY_S = 1.0


class Held:
    """A delivery being worked on, by one thread."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.task: Task | None = None
        self.ticket: Ticket | None = None
        self.handed_back = False
        self.attempt = delivery.received

    def hand_back(self) -> None:
        """Stop drawing, and let another worker have it at once."""
        self.handed_back = True
        self.delivery.release()
        if self.ticket is not None:
            self.ticket.cancel()


class Lifecycle:
    """Takes deliveries to their end; `run` is called on a thread for each."""

    def __init__(
        self,
        settings: WorkerSettings,
        models: Models,
        store: Store,
        announcer: Announcer,
        reader: Reader,
        metrics: Metrics,
    ) -> None:
        self.settings = settings
        self.models = models
        self.store = store
        self.announcer = announcer
        self.reader = reader
        self.metrics = metrics

    def run(self, held: Held) -> None:
        """Never raises: what goes wrong here brings the task back to the queue."""
        started, delivery = time.monotonic(), held.delivery
        try:
            with tracing.span("task", delivery.trace) as span:
                outcome = self._work(held, span)
        except Exception as error:
            outcome = self._retry(held, error)
        self.metrics.ended(outcome, time.monotonic() - started)

    def _work(self, held: Held, span: Span) -> str:
        delivery = held.delivery
        try:
            held.task = task = from_queue(delivery.body)
        except InvalidInput as error:
            logger.error("message %s is not a task: %s", delivery.id, error.message)
            delivery.bury(self.settings.dead_letter_url, error.message)
            return "poison"
        held.attempt = self._attempt(delivery)
        manifest = self.store.manifest(task)
        if manifest is None:
            manifest = self.store.put_manifest(task, self._draw(held, task, span))
        else:
            logger.info("task %s had ended: announced again", task.metadata.id)
        self.announcer.tell(task, manifest, delivery)
        self._finish(held, manifest)
        return manifest.status

    def _attempt(self, delivery: Delivery) -> int:
        """Deliveries so far, without those that were handed back."""
        if delivery.received <= self.settings.attempts:
            return delivery.received
        return delivery.received - self.store.excuses(delivery.id)

    def _given_up(self, held: Held) -> bool:
        settings = self.settings
        return held.attempt > settings.attempts or held.delivery.received > settings.deliveries

    def _draw(self, held: Held, task: Task, span: Span) -> Manifest:
        """What becomes of a task that has not ended: its images, or its own fault."""
        delivery = held.delivery
        if self._given_up(held):
            given_up = f"given up after {delivery.received - 1} deliveries"
            return self._manifest(task, delivery, span, "failed", error=given_up)
        try:
            return self._drawn(held, task, span)
        except InvalidInput as error:
            return self._manifest(task, delivery, span, "failed", error=error.message)
        except GenerationFailed as error:
            if held.attempt < self.settings.attempts:
                raise
            return self._manifest(task, delivery, span, "failed", error=error.message)
        except Cancelled as error:
            if held.handed_back:
                raise
            return self._manifest(task, delivery, span, "cancelled", error=error.message)

    def _drawn(self, held: Held, task: Task, span: Span) -> Manifest:
        if self.store.is_cancelled(task):
            raise Cancelled("cancelled before it was drawn")
        every = self.reader.of(task)
        with self.models.use(task.model) as runnable:
            parameters = _parameters(task, held.delivery, runnable)
            results = [_result(held, runnable, parameters, inputs) for inputs in every]
        return self._stored(task, held.delivery, span, _merged(results), runnable)

    def _stored(
        self,
        task: Task,
        delivery: Delivery,
        span: Span,
        result: Result,
        runnable: StableDiffusionRunnable,
    ) -> Manifest:
        """Every image in the bucket, and the manifest that tells of them."""
        trace = {"traceparent": value} if (value := tracing.traceparent(span)) else {}
        started, urls = time.perf_counter(), []
        for number, drawn in enumerate(result.images):
            alone = replace(result, images=(drawn,))
            data = files.encode(alone, "png", runnable.settings)
            urls.append(self.store.put_image(task, number, data, trace))
        timings = {**result.timings, "store": time.perf_counter() - started}
        waited = max(0.0, time.time() - delivery.sent - sum(timings.values()))
        return self._manifest(
            task,
            delivery,
            span,
            "completed",
            image_url=urls,
            seeds=[drawn.seed for drawn in result.images if drawn.seed is not None],
            finish_reasons=[drawn.finish_reason for drawn in result.images],
            parameters=result.parameters.model_dump(exclude_none=True),
            timings={name: round(s, 4) for name, s in {"waited": waited, **timings}.items()},
        )

    def _manifest(
        self, task: Task, delivery: Delivery, span: Span, status: Status, **told: object
    ) -> Manifest:
        return Manifest.model_validate(
            {
                "id": task.metadata.id,
                "runtime": task.metadata.runtime,
                "status": status,
                "output_url": self.store.url(keys.manifest(task)),
                "attempt": delivery.received,
                "worker": self.settings.name,
                "traceparent": tracing.traceparent(span),
                **told,
            }
        )

    def _finish(self, held: Held, manifest: Manifest) -> None:
        """Out of the queue; a task that was given up stays in the dead-letter queue for a look."""
        delivery = held.delivery
        if manifest.status == "failed" and self._given_up(held):
            delivery.bury(self.settings.dead_letter_url, manifest.error or "given up")
        else:
            delivery.delete()

    def excuse(self, delivery: Delivery) -> None:
        """A delivery that was handed back is none of the task's attempts."""
        try:
            self.store.excuse(delivery.id, delivery.received)
        except (BotoCoreError, ClientError) as error:
            logger.warning("message %s counts as tried: %s", delivery.id, error)

    def _retry(self, held: Held, error: Exception) -> str:
        """Ours to blame (storage, capacity, a stop): another try later, here or elsewhere."""
        delivery = held.delivery
        if held.handed_back:
            self.excuse(delivery)
            return "handed_back"
        delay = self.settings.backoff_s * 2 ** min(delivery.received - 1, 10)
        logger.warning("message %s, try %d: %s", delivery.id, delivery.received, error)
        delivery.release(delay)
        return "retried"


def _parameters(task: Task, delivery: Delivery, runnable: StableDiffusionRunnable) -> AnyParameters:
    words = [one["name"] for one in runnable.embeddings()]
    parameters = task.parameters(words)
    priority = "high" if delivery.urgent else "normal"
    return parameters.model_copy(update={"priority": priority, "deadline_s": DEADLINE_S})


def _result(
    held: Held, runnable: StableDiffusionRunnable, parameters: AnyParameters, inputs: Inputs
) -> Result:
    held.ticket = ticket = _submit(held, runnable, parameters, inputs)
    if held.handed_back:
        ticket.cancel()
    return ticket.future.result()


def _merged(results: list[Result]) -> Result:
    """Those of one task, drawn one after another with the same parameters."""
    first, *_ = results
    return replace(
        first,
        images=tuple(drawn for one in results for drawn in one.images),
        timings={stage: sum(one.timings[stage] for one in results) for stage in first.timings},
        cost_units=sum(one.cost_units for one in results),
    )


def _submit(
    held: Held, runnable: StableDiffusionRunnable, parameters: AnyParameters, inputs: Inputs
) -> Ticket:
    """Wait here while the engine is full: handing the task back would cost it a delivery.

    Raises:
        Cancelled: it was handed back meanwhile.
    """
    while not held.handed_back:
        try:
            return runnable.submit(parameters, inputs.image, inputs.mask, controls=inputs.controls)
        except OverCapacity:
            time.sleep(RETRY_S)
    raise Cancelled("handed back")
