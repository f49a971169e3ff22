"""A task ends once, is announced even so, and stays ours while a stop waits for it."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from prometheus_client import CollectorRegistry

from hosts.queue import keys
from hosts.queue.front.publish import Front
from hosts.queue.local.topology import Topology
from hosts.queue.messages import read
from hosts.queue.worker.announce import Announcer
from hosts.queue.worker.delivery import Delivery
from hosts.queue.worker.inputs import Reader
from hosts.queue.worker.lifecycle import InFlight, Lifecycle
from hosts.queue.worker.metrics import Metrics
from hosts.queue.worker.receiver import Receiver
from hosts.queue.worker.settings import WorkerSettings
from hosts.queue.worker.store import Store
from runnables.errors import GenerationFailed
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Progress, Ticket
from tests.hosts.queue import tasks
from tests.hosts.queue.test_system import post

pytestmark = pytest.mark.parametrize("endpoint", ["moto"], indirect=True)


@dataclass
class Desk:
    """A worker's parts, on this thread."""

    aws: Any
    topology: Topology
    front: Front
    settings: WorkerSettings
    lifecycle: Lifecycle

    def send(self, id: str) -> None:
        assert post(self.front, "/v1alpha2", tasks.newer(id))[0] == 200

    def receive(self, url: str) -> list[dict[str, Any]]:
        got = self.aws.client("sqs").receive_message(
            QueueUrl=url,
            WaitTimeSeconds=1,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
            MaxNumberOfMessages=10,
        )
        return list(got.get("Messages", []))

    def delivered(self) -> Delivery:
        (message,) = self.receive(self.settings.queues[0])
        return Delivery.of(self.aws.client("sqs"), self.settings.queues[0], message, False)

    def left(self) -> int:
        """The messages in the queue, hidden ones too."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.aws.client("sqs").get_queue_attributes(
            QueueUrl=self.settings.queues[0], AttributeNames=names
        )
        return sum(int(found["Attributes"][name]) for name in names)

    def announced(self) -> list[dict[str, Any]]:
        return [json.loads(one["Body"]) for one in self.receive(self.topology.watch)]


@pytest.fixture
def desk(
    make_system: Callable[[], tuple[Topology, Front]],
    aws: Any,
    start: Callable[..., StableDiffusionRunnable],
) -> Desk:
    topology, front = make_system()
    settings = WorkerSettings(
        queue_urls=topology.queues["sd15"][1],
        dead_letter_url=topology.dead_letters,
        topic_arn=topology.results_topic,
        bucket=topology.bucket,
        attempts=5,
        deliveries=8,
        backoff_s=0,
        visibility_s=6,
        poll_s=1,
    )
    runnable, s3 = start("sd1"), aws.client("s3")
    lifecycle = Lifecycle(
        settings,
        runnable,
        Store(s3, topology.bucket),
        Announcer(aws.client("sns"), topology.results_topic),
        Reader(s3, settings.buckets, runnable.settings),
        Metrics(CollectorRegistry()),
    )
    return Desk(aws, topology, front, settings, lifecycle)


def test_the_first_of_two_manifests_counts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker stores its end while this one generates: both announce the other's."""
    desk.send("first")
    task, lifecycle = read(tasks.newer("first")), desk.lifecycle
    delivery = desk.delivered()
    parameters = lifecycle._parameters

    def others(*given: Any) -> Any:
        other = lifecycle._manifest(task, delivery, "failed", error="the other worker's")
        assert lifecycle.store.put_manifest(task, other) == other
        return parameters(*given)

    monkeypatch.setattr(lifecycle, "_parameters", others)
    lifecycle.run(InFlight(delivery))
    (told,) = desk.announced()
    assert (told["status"], told["error"]) == ("failed", "the other worker's")
    assert desk.left() == 0
    manifest = lifecycle.store.manifest(task)
    assert manifest is not None and manifest.error == "the other worker's"


def test_an_announcement_that_fails_is_made_again(desk: Desk) -> None:
    """The message is kept until then, and the task is not generated again."""
    desk.send("told")
    sns, failures = desk.lifecycle.announcer._sns, [1]

    def fail(**_: object) -> None:
        if failures:
            raise EndpointConnectionError(endpoint_url=f"planted {failures.pop()}")

    sns.meta.events.register("before-call.sns.Publish", fail)
    desk.lifecycle.run(InFlight(desk.delivered()))
    assert not failures and desk.announced() == [] and desk.left() == 1
    again = desk.delivered()
    assert again.received == 2
    desk.lifecycle.run(InFlight(again))
    (told,) = desk.announced()
    assert told["status"] == "completed"
    assert desk.left() == 0
    manifest = desk.lifecycle.store.manifest(read(tasks.newer("told")))
    assert manifest is not None and manifest.attempt == 1, "the end of the first try"
    assert manifest.seeds == [manifest.parameters["seed"]]


@pytest.mark.parametrize(
    ("received", "handed_back", "status"),
    [(5, 0, "completed"), (6, 0, "failed"), (8, 6, "completed"), (9, 6, "failed")],
)
def test_a_task_that_came_too_often_is_given_up(
    desk: Desk, received: int, handed_back: int, status: str
) -> None:
    """After five tries, or eight deliveries of any kind, it is a dead letter."""
    desk.send("often")
    delivery = desk.delivered()
    delivery.received = received
    for number in range(handed_back):
        desk.lifecycle.store.excuse(delivery.id, number)
    desk.lifecycle.run(InFlight(delivery))
    (told,) = desk.announced()
    assert told["status"] == status
    dead = desk.receive(desk.topology.dead_letters)
    reasons = [one["MessageAttributes"]["reason"]["StringValue"] for one in dead]
    given_up = [f"given up after {received - 1} deliveries"]
    assert reasons == (given_up if status == "failed" else [])
    assert desk.left() == 0


def test_a_task_that_fails_is_tried_again_until_its_last_try(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise GenerationFailed("broken")

    monkeypatch.setattr(desk.lifecycle.runnable, "submit", fail)
    desk.send("broken")
    delivery = desk.delivered()
    delivery.received = 4
    desk.lifecycle.run(InFlight(delivery))
    assert desk.announced() == [] and desk.left() == 1
    last = desk.delivered()
    last.received = 5
    desk.lifecycle.run(InFlight(last))
    (told,) = desk.announced()
    assert (told["status"], told["error"]) == ("failed", "broken")
    assert desk.left() == 0


def test_a_cancelled_task_is_not_generated(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.send("unwanted")
    key = keys.cancelled("output", "unwanted")
    desk.aws.client("s3").put_object(Bucket=desk.settings.bucket, Key=key)
    monkeypatch.setattr(desk.lifecycle.runnable, "submit", None)
    desk.lifecycle.run(InFlight(desk.delivered()))
    (told,) = desk.announced()
    assert told["status"] == "cancelled"
    assert desk.left() == 0


def test_a_task_that_was_handed_back_has_not_ended(desk: Desk) -> None:
    desk.send("back")
    current = InFlight(desk.delivered())
    current.hand_back()
    desk.lifecycle.run(current)
    assert desk.announced() == [] and desk.left() == 1
    assert desk.lifecycle.store.manifest(read(tasks.newer("back"))) is None
    assert desk.lifecycle.store.excuses(current.delivery.id) == 1


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_model_that_a_task_names_is_taken_where_that_is_asked_for(
    desk: Desk, dynamic: bool
) -> None:
    lifecycle, task = desk.lifecycle, read(tasks.older("named"))
    desk.send("named")
    lifecycle.settings = desk.settings.model_copy(update={"dynamic": dynamic})
    delivery = desk.delivered()
    delivery.urgent = dynamic
    parameters = lifecycle._parameters(task, delivery)
    assert parameters.model == (tasks.MODEL if dynamic else None)
    assert parameters.priority == ("high" if dynamic else "normal")


def test_heartbeats_go_on_through_a_long_stop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else another worker would get the task that this one is still finishing."""
    sqs, working, done = desk.aws.client("sqs"), threading.Event(), threading.Event()
    beats: queue.Queue[int] = queue.Queue()
    beat = "provide-client-params.sqs.ChangeMessageVisibility"
    sqs.meta.events.register(beat, lambda params, **_: beats.put(params["VisibilityTimeout"]))

    def finish(current: InFlight) -> None:
        current.ticket = Ticket(TextToImage(prompt="x"))
        current.ticket.progress = Progress("decoding", 1, 1)
        working.set()
        assert done.wait(300)

    monkeypatch.setattr(desk.lifecycle, "run", finish)
    receiver = Receiver(sqs, desk.settings, desk.lifecycle, limit=1)
    waits, wait = list[float](), receiver._stopped.wait
    monkeypatch.setattr(receiver._stopped, "wait", lambda s: [waits.append(s), wait(s)][1])
    desk.send("long")
    receiver.start()
    assert working.wait(300)
    assert desk.settings.visibility_s / 3 in waits, "two may fail"
    stop = threading.Thread(target=receiver.stop, args=(60.0,))
    stop.start()
    assert wait(60)
    while not beats.empty():
        beats.get()
    assert [beats.get(timeout=300) for _ in range(2)] == [desk.settings.visibility_s] * 2
    assert stop.is_alive(), "it waits for what can be finished in time"
    done.set()
    stop.join(300)
    assert not stop.is_alive()
