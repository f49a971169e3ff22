"""Takes messages from the queues while there is room, keeps them alive, and hands them back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from hosts.queue.worker.delivery import Delivery
from hosts.queue.worker.lifecycle import InFlight, Lifecycle
from hosts.queue.worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

BATCH = 10  # what SQS gives at once
PAUSE_S = 0.05  # between looks for room
TROUBLE_S = 1.0  # after a failed call


class Receiver:
    """One polling thread per queue, one heartbeat for all, one thread per task.

    Args:
        limit: tasks in flight at once.
        changed: called with the number of tasks in flight whenever it changes.
    """

    def __init__(
        self,
        sqs: Any,
        settings: WorkerSettings,
        lifecycle: Lifecycle,
        limit: int,
        changed: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._sqs, self._settings, self._lifecycle = sqs, settings, lifecycle
        self._limit, self._changed = limit, changed
        self._in_flight: set[InFlight] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(limit + settings.reserve, thread_name_prefix="task")
        last = len(settings.queues) - 1
        polls = [(queue, place < last) for place, queue in enumerate(settings.queues)]
        self._pollers = [
            threading.Thread(target=self._poll, args=poll, daemon=True) for poll in polls
        ]
        self._threads = [*self._pollers, threading.Thread(target=self._beat, daemon=True)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, grace_s: float) -> None:
        """Take nothing more; finish what can be finished in time, hand back the rest at once.

        Ends once no poll is under way: what one still brings, often what was just handed back, is
        handed back as well and not left hidden.
        """
        self._stopped.set()
        started = time.monotonic()
        end = started + grace_s
        while left_over := self.in_flight:
            left = end - time.monotonic()
            for one in left_over:
                if not one.handed_back and _needs(one) > left:
                    one.hand_back()
            if left < -1:  # handed back, but its thread hangs in a call
                break
            time.sleep(PAUSE_S)
        for poller in self._pollers:
            polled = started + self._settings.poll_s + TROUBLE_S
            poller.join(max(0.0, polled - time.monotonic()))

    @property
    def in_flight(self) -> list[InFlight]:
        """Everything that is being worked on."""
        with self._lock:
            return list(self._in_flight)

    @property
    def polling(self) -> bool:
        """True while every thread does its work."""
        return all(thread.is_alive() for thread in self._threads) and not self._stopped.is_set()

    # -- threads ----------------------------------------------------------------------------

    def _poll(self, queue: str, urgent: bool) -> None:
        while not self._stopped.is_set():
            room = self._limit + self._settings.reserve * urgent - len(self._in_flight)
            if room <= 0 or not self._lifecycle.runnable.alive:
                self._stopped.wait(PAUSE_S)
                continue
            try:
                for message in self._receive(queue, min(room, BATCH)):
                    self._take(Delivery.of(self._sqs, queue, message, urgent))
            except (BotoCoreError, ClientError) as error:
                logger.warning("%s cannot be polled: %s", queue, error)
                self._stopped.wait(TROUBLE_S)
            except RuntimeError:  # the pool is shut
                return

    def _receive(self, queue: str, count: int) -> list[dict[str, Any]]:
        answer = self._sqs.receive_message(
            QueueUrl=queue,
            MaxNumberOfMessages=count,
            WaitTimeSeconds=self._settings.poll_s,
            VisibilityTimeout=self._settings.visibility_s,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return list(answer.get("Messages", []))

    def _take(self, delivery: Delivery) -> None:
        if self._stopped.is_set():
            delivery.release()
            self._lifecycle.excuse(delivery)
            return
        current = InFlight(delivery)
        with self._lock:
            self._in_flight.add(current)
            self._changed(len(self._in_flight))
        self._pool.submit(self._run, current)

    def _run(self, current: InFlight) -> None:
        try:
            self._lifecycle.run(current)
        finally:
            with self._lock:
                self._in_flight.discard(current)
                self._changed(len(self._in_flight))

    def _beat(self) -> None:
        """A third of the visibility time between beats: two may fail before a task is lost."""
        every_s = self._settings.visibility_s / 3
        while not self._stopped.wait(every_s) or self._in_flight:
            for current in self.in_flight:
                try:
                    self._keep(current)
                except (BotoCoreError, ClientError) as error:
                    logger.warning("heartbeat of %s: %s", current.delivery.id, error)
            if self._stopped.is_set():
                time.sleep(every_s)

    def _keep(self, current: InFlight) -> None:
        current.delivery.extend(self._settings.visibility_s)
        if current.task and current.ticket and self._lifecycle.store.is_cancelled(current.task):
            current.ticket.cancel()


def _needs(current: InFlight) -> float:
    """Estimated seconds until a task is finished; infinity where it has not begun."""
    if current.ticket is None:
        return float("inf")
    progress = current.ticket.progress
    if progress.state in ("done", "decoding", "failed", "cancelled"):
        return 0.0
    if progress.state == "queued" or progress.eta_s is None:
        return float("inf")
    return progress.eta_s
