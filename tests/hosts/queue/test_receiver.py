"""How many messages a worker takes, and what it does with them when it stops."""

from __future__ import annotations

import queue
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from hosts.queue.worker import receiver as module
from hosts.queue.worker.delivery import Delivery
from hosts.queue.worker.lifecycle import InFlight
from hosts.queue.worker.lifecycle import Lifecycle as RealLifecycle
from hosts.queue.worker.receiver import Receiver
from hosts.queue.worker.settings import WorkerSettings
from runnables.errors import GenerationFailed
from runnables.parameters import TextToImage
from runnables.ticket import Progress, State, Ticket
from tests.hosts.queue.test_worker import until


class Sqs:
    """Gives what was put in its queues; keeps what it is asked."""

    def __init__(self) -> None:
        self.queues: dict[str, queue.Queue[str]] = {"urgent": queue.Queue(), "last": queue.Queue()}
        self.asked: list[tuple[str, int]] = []
        self.hidden: list[tuple[str, int]] = []

    def receive_message(self, **given: Any) -> dict[str, Any]:
        name, count = given["QueueUrl"], given["MaxNumberOfMessages"]
        self.asked.append((name, count))
        try:
            ids = [self.queues[name].get(timeout=0.01)]
        except queue.Empty:
            return {}
        while len(ids) < count and not self.queues[name].empty():
            ids.append(self.queues[name].get())
        return {"Messages": [{"MessageId": id, "ReceiptHandle": id, "Body": ""} for id in ids]}

    def change_message_visibility(self, **given: Any) -> None:
        self.hidden.append((given["ReceiptHandle"], given["VisibilityTimeout"]))


class Lifecycle:
    """Its tasks run until `done`."""

    def __init__(self) -> None:
        self.runnable = SimpleNamespace(alive=True)
        self.store = SimpleNamespace(is_cancelled=lambda task: task == "cancelled")
        self.began: list[InFlight] = []
        self.done = threading.Event()
        self.excused: list[str] = []

    def run(self, current: InFlight) -> None:
        self.began.append(current)
        while not self.done.wait(0.01) and not current.handed_back:
            pass

    def excuse(self, delivery: Delivery) -> None:
        self.excused.append(delivery.id)

    def ids(self) -> list[str]:
        return sorted(one.delivery.id for one in self.began)


def make(limit: int = 1, **settings: Any) -> tuple[Receiver, Sqs, Lifecycle]:
    sqs, lifecycle = Sqs(), Lifecycle()
    given = {"queue_urls": "urgent,last", "dead_letter_url": "", "topic_arn": "", "bucket": ""}
    made = WorkerSettings(**{**given, "poll_s": 0, **settings})  # type: ignore[arg-type]
    return Receiver(sqs, made, lifecycle, limit), sqs, lifecycle  # type: ignore[arg-type]


def delivery(sqs: Sqs, id: str) -> Delivery:
    return Delivery(sqs, "last", id, receipt=id, body="")


def ticket(state: State, eta_s: float | None = None) -> Ticket:
    made = Ticket(TextToImage(prompt="x"))
    made.progress = Progress(state, 1, 4, eta_s=eta_s)
    return made


def test_it_takes_what_there_is_room_for_and_more_of_what_is_urgent() -> None:
    receiver, sqs, lifecycle = make(limit=3, reserve=1)
    for number in range(9):
        sqs.queues["last"].put(f"last {number}")
    receiver.start()
    until(lambda: len(lifecycle.began) == 3)
    until(lambda: ("urgent", 1) in sqs.asked)  # polls that began before ask for more
    for number in range(9):
        sqs.queues["urgent"].put(f"urgent {number}")
    until(lambda: len(lifecycle.began) == 4)  # all of them run: there is a thread for each
    assert receiver.polling
    assert len(receiver.in_flight) == 4
    assert [id.split()[0] for id in lifecycle.ids()] == ["last"] * 3 + ["urgent"]
    assert max(count for name, count in sqs.asked if name == "last") == 3
    assert max(count for name, count in sqs.asked if name == "urgent") <= 4
    lifecycle.done.set()
    until(lambda: len(lifecycle.began) == 18)
    receiver.stop(5)


def test_no_more_than_sqs_gives_are_asked_for() -> None:
    receiver, sqs, _ = make(limit=30)
    receiver.start()
    until(lambda: len(sqs.asked) > 1)
    receiver.stop(5)
    assert {count for _, count in sqs.asked} == {10}


def test_a_dead_engine_takes_nothing() -> None:
    receiver, sqs, lifecycle = make()
    lifecycle.runnable.alive = False
    receiver.start()
    sqs.queues["last"].put("later")
    pauses = list[float]()
    receiver._stopped.wait = lambda s=None: [pauses.append(s), False][1]  # type: ignore
    until(lambda: len(pauses) > 5)
    assert not sqs.asked
    lifecycle.runnable.alive = True
    until(lambda: lifecycle.began)
    lifecycle.done.set()
    del receiver._stopped.wait
    receiver.stop(5)


def test_a_stop_finishes_what_it_can_and_hands_back_the_rest() -> None:
    receiver, sqs, lifecycle = make(limit=3)
    for id in ("soon", "long", "unknown"):
        sqs.queues["last"].put(id)
    receiver.start()
    until(lambda: len(lifecycle.began) == 3)
    current = {one.delivery.id: one for one in lifecycle.began}
    current["soon"].ticket = ticket("drawing", eta_s=2.0)
    current["long"].ticket = ticket("drawing", eta_s=900.0)
    stop = threading.Thread(target=receiver.stop, args=(300.0,))
    stop.start()
    until(lambda: len(receiver.in_flight) == 1)
    assert stop.is_alive()
    given_back = sorted(id for id, seconds in sqs.hidden if seconds == 0)
    assert given_back == ["long", "unknown"]
    assert current["long"].ticket.cancelled and not current["soon"].ticket.cancelled
    lifecycle.done.set()
    stop.join(300)
    assert not stop.is_alive() and not current["soon"].handed_back
    assert not any(poller.is_alive() for poller in receiver._pollers), "no poll is under way"
    assert not receiver.polling


def test_what_a_poll_brings_after_the_stop_is_handed_back() -> None:
    receiver, sqs, lifecycle = make()
    receiver.start()
    receiver.stop(0)
    receiver._take(delivery(sqs, "late"))
    assert (sqs.hidden, lifecycle.excused) == ([("late", 0)], ["late"])
    assert not receiver.in_flight


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        (None, float("inf")),
        (ticket("queued", 1.0), float("inf")),
        (ticket("drawing"), float("inf")),
        (ticket("drawing", 7.5), 7.5),
        *((ticket(state, 9.0), 0.0) for state in ("done", "decoding", "failed", "cancelled")),
    ],
)
def test_what_a_task_needs(given: Ticket | None, needs: float) -> None:
    current = InFlight(delivery(Sqs(), "x"))
    current.ticket = given
    assert module._needs(current) == needs


@pytest.mark.parametrize(
    ("task", "submitted", "cancelled"),
    [("cancelled", True, True), ("wanted", True, False), ("cancelled", False, False)],
)
def test_a_heartbeat_keeps_a_task_and_looks_whether_it_is_wanted(
    task: Any, submitted: bool, cancelled: bool
) -> None:
    receiver, sqs, _ = make(visibility_s=60)
    current = InFlight(delivery(sqs, "x"))
    current.task, current.ticket = task, ticket("drawing") if submitted else None
    receiver._keep(current)
    assert sqs.hidden == [("x", 60)]
    assert (current.ticket is not None and current.ticket.cancelled) == cancelled


def test_heartbeats_go_on_while_there_is_nothing_to_keep() -> None:
    receiver, _, _ = make(visibility_s=60)
    waits, wait = list[float](), receiver._stopped.wait
    receiver._stopped.wait = lambda s=None: [waits.append(s), wait(0.01)][1]  # type: ignore
    beat = threading.Thread(target=receiver._beat, daemon=True)
    beat.start()
    until(lambda: len(waits) > 3 or not beat.is_alive())
    assert len(waits) > 3 and set(waits) == {20.0}
    receiver._stopped.set()
    beat.join(300)
    assert not beat.is_alive()


def test_a_task_that_was_not_read_yet_cannot_be_cancelled() -> None:
    receiver, sqs, lifecycle = make()
    asked = list[object]()
    lifecycle.store.is_cancelled = lambda task: asked.append(task)
    receiver._keep(InFlight(delivery(sqs, "x")))
    assert not asked


@pytest.mark.parametrize(
    ("received", "delay"), [(1, 5), (2, 10), (3, 20), (8, 640), (9, 900), (50, 900)]
)
def test_retries_come_later_and_later(received: int, delay: int) -> None:
    sqs, settings = Sqs(), make()[0]._settings
    lifecycle = RealLifecycle(settings, *[None] * 5)  # type: ignore[arg-type]
    current = InFlight(replace(delivery(sqs, "x"), received=received))
    assert lifecycle._retry(current, GenerationFailed("broken")) == "retried"
    current.delivery.extend(60)
    current.delivery.release()
    assert sqs.hidden == [("x", delay)], "and it is no longer ours"


def test_no_thread_keeps_the_process_from_ending() -> None:
    receiver, _, _ = make()
    assert all(thread.daemon for thread in receiver._threads)
