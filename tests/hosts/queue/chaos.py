"""Many tasks through few workers, while workers die and calls fail. What is left is counted."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from hosts.queue.front.publish import Front
from hosts.queue.local import stand_in, workers
from hosts.queue.local.topology import Topology
from hosts.queue.messages import read
from tests.hosts.queue import tasks

VISIBILITY_S = 12
GOOD = {"metadata": {"id": "x", "runtime": "sd15", "tasktype": "text-to-image"}}
POISON = {
    "no JSON": "{",
    "no object": "[1, 2]",
    "empty": "{}",
    "not a number": '{"metadata": {}, "content": {"cfg_scale": NaN}}',
    "nested without end": "[" * 50_000,
    "no content": json.dumps(GOOD),
    "prompt is no text": json.dumps({**GOOD, "content": {"prompt": 2}}),
    "out of range": json.dumps({**GOOD, "content": {"prompt": "x", "steps": 1000}}),
    "leads out of its folder": json.dumps(
        {"metadata": {**GOOD["metadata"], "id": "../../x"}, "content": {"prompt": "x"}}
    ),
    "a graph": json.dumps(
        {"metadata": {**GOOD["metadata"], "tasktype": "pipeline"}, "content": {"prompt": "x"}}
    ),
}


@dataclass
class Report:
    """What became of it all."""

    tasks: int
    results: Counter[int] = field(default_factory=Counter)  # manifests a task -> tasks
    status: Counter[str] = field(default_factory=Counter)
    missing_images: int = 0
    unannounced: int = 0
    completions: int = 0
    buried: Counter[str] = field(default_factory=Counter)  # kind of poison -> times
    kills: int = 0
    terms: int = 0
    handed_back: int = 0
    attempts: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass
class Crew:
    """Workers that are killed and started anew.

    Attributes:
        settings: the environment of each worker: AWS, its queues, its model.
    """

    settings: list[dict[str, str]]
    log: Path
    running: list[tuple[subprocess.Popen[bytes], int]] = field(default_factory=list)

    def start(self, number: int) -> tuple[subprocess.Popen[bytes], int]:
        """A worker, and the port of its probes."""
        port = stand_in.free_port()
        process = workers.start(
            self.log,
            {
                "WORKER_GRACE_S": "3",
                **self.settings[number],
                "WORKER_HOST": "127.0.0.1",
                "WORKER_PORT": str(port),
                "WORKER_POLL_S": "2",
                "WORKER_VISIBILITY_S": str(VISIBILITY_S),
                "WORKER_BACKOFF_S": "1",
                "WORKER_IN_FLIGHT": "16",
                "AWS_MAX_ATTEMPTS": "2",  # the rest is ours to survive
                "SD_THREADS": "1",
            },
        )
        return process, port

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self.running = [self.start(number) for number in range(len(self.settings))]
        try:
            yield
        finally:
            for process, _ in self.running:
                process.terminate()
            for process, _ in self.running:
                process.wait(300)

    def wait_ready(self, number: int) -> None:
        """Until this worker takes tasks."""
        workers.wait_ready(*self.running[number], self.log, timeout=900)

    def disturb(self, number: int, how: signal.Signals) -> None:
        """End a worker and start its successor."""
        victim, _ = self.running[number]
        victim.send_signal(how)
        victim.wait(300)
        self.running[number] = self.start(number)

    def busy(self, first: int) -> int:
        """The next worker, from this number on, that is ready and has tasks in flight, if any."""
        count = len(self.running)
        for number in (*range(first, count), *range(first)):
            process, port = self.running[number]
            if process.poll() is None and _in_flight(port):
                return number
        return first


def _in_flight(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            found = re.search(r"^worker_tasks_in_flight (\S+)$", answer.read().decode(), re.M)
            return int(float(found[1])) if found else 0
    except OSError:  # still starting
        return 0


def bodies(count: int) -> list[dict[str, Any]]:
    """Both forms, four sizes, 1 to 2 images, 2 to 6 steps."""
    rng, made = random.Random(0), []
    for number in range(count):
        size = rng.choice([(64, 64), (64, 64), (64, 96), (96, 64)])
        options: dict[str, Any] = {
            "steps": rng.randint(2, 6),
            "width": size[0],
            "height": size[1],
            "batch_size": rng.choice([1, 1, 1, 2]),
            "sampler_name": rng.choice(["Euler a", "DDIM", "DPM++ 2M"]),
        }
        form = tasks.newer if number % 2 else tasks.older
        made.append(form(f"task-{number}", **options))
    return made


def run(
    aws: Any,
    topology: Topology,
    front: Front,
    crew: Crew,
    sent: list[tuple[dict[str, Any], str]],
    ends: list[signal.Signals],
    limit_s: float,
) -> Report:
    """Send, disturb, wait until every task has ended, and count.

    Args:
        sent: bodies, and the API key that each is sent with.
        ends: how workers end, one after the other.
    """
    count = len(sent)
    started, report = time.monotonic(), Report(count)
    asked = {body_id(body): read(body) for body, _ in sent}
    keys = [key for _, key in sent]
    announced: Counter[str] = Counter()
    stop = threading.Event()
    listener = threading.Thread(target=_listen, args=(aws, topology.watch, announced, stop))
    with crew.at_work():
        listener.start()
        sender = _Sender(aws, crew, front, list(zip(asked.values(), keys, strict=True)))
        _disturb(crew, announced, sender, ends, report)
        _wait_empty(aws, topology, announced, count, started + limit_s)
    stop.set()
    listener.join()
    report.seconds = time.monotonic() - started
    _count(aws, topology, asked, announced, report)
    return report


def body_id(body: dict[str, Any]) -> str:
    """The task's id in either form."""
    if "task" in body:
        return str(body["task"]["metadata"]["id"])
    return str(body["alwayson_scripts"]["id_task"])


class _Sender:
    """All tasks through the front door, as a client that tries again; poison past it.

    Poison goes to the queues that the crew reads.
    """

    def __init__(self, aws: Any, crew: Crew, front: Front, asked: list[Any]) -> None:
        read_by_crew = {one["WORKER_QUEUE_URLS"].split(",")[-1] for one in crew.settings}
        self._sqs, self._queues = aws.client("sqs"), sorted(read_by_crew)
        self._front, self._asked, self._poison = front, asked, list(POISON.values())
        self.sent = 0

    def send(self, until: float) -> None:
        """Up to this share of all."""
        while self._poison and 1 - len(self._poison) / len(POISON) < until:
            queue = self._queues[len(self._poison) % len(self._queues)]
            self._sqs.send_message(QueueUrl=queue, MessageBody=self._poison.pop())
        while self.sent < until * len(self._asked):
            for _ in range(10):
                try:
                    task, key = self._asked[self.sent]
                    self._front.accept(task, key=key, trace={})
                    break
                except (BotoCoreError, ClientError):
                    time.sleep(0.05)
            self.sent += 1


def _disturb(
    crew: Crew,
    announced: Counter[str],
    sender: _Sender,
    ends: list[signal.Signals],
    report: Report,
) -> None:
    """A share of the tasks at a time; while it is worked on, a kill -9 or a SIGTERM."""
    for turn, how in enumerate(ends):
        first = turn % len(crew.running)
        crew.wait_ready(first)
        sender.send((turn + 1) / len(ends))
        while len(announced) < sender.sent - 0.7 * report.tasks / len(ends):
            time.sleep(0.02)
        crew.disturb(crew.busy(first), how)
        report.kills += how is signal.SIGKILL
        report.terms += how is signal.SIGTERM


def _listen(aws: Any, queue: str, announced: Counter[str], stop: threading.Event) -> None:
    sqs = aws.client("sqs")
    while True:
        got = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in got.get("Messages", []):
            told = json.loads(message["Body"])
            announced[told["id"] if "id" in told else told["parameters"]["id_task"]] += 1
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        if stop.is_set() and not got.get("Messages"):
            return


def _wait_empty(
    aws: Any, topology: Topology, announced: Counter[str], count: int, limit: float
) -> None:
    """Until every task is announced and no queue has anything left, hidden messages included."""
    sqs = aws.client("sqs")
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    queues = [url for both in topology.queues.values() for url in both]

    def left(url: str) -> bool:
        told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return any(told[name] != "0" for name in names)

    while time.monotonic() < limit:
        if len(announced) >= count and not any(map(left, queues)):
            return
        time.sleep(0.2)


def _count(
    aws: Any, topology: Topology, asked: dict[str, Any], announced: Counter[str], report: Report
) -> None:
    s3, stored = aws.client("s3"), set()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=topology.bucket):
        stored |= {one["Key"] for one in page.get("Contents", [])}
    report.handed_back = sum(key.startswith(".handed-back/") for key in stored)
    for id in asked:
        manifests = [key for key in stored if key.endswith(".out") and f"/{id}/" in key]
        report.results[len(manifests)] += 1
        report.unannounced += not announced[id]
        for key in manifests:
            told = json.loads(s3.get_object(Bucket=topology.bucket, Key=key)["Body"].read())
            report.status[told["status"]] += 1
            report.attempts[told["attempt"]] += 1
            keys = {url.split("/", 3)[3] for url in told["image_url"]}
            pictures = {key for key in stored if key.endswith(".png") and f"/{id}/" in key}
            report.missing_images += keys != pictures or not keys
    report.completions = sum(announced.values())
    report.buried = _drain(aws, topology.dead_letters)


def _drain(aws: Any, queue: str) -> Counter[str]:
    sqs, found = aws.client("sqs"), Counter[str]()
    kinds = {body: kind for kind, body in POISON.items()}
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found[kinds.get(message["Body"], message["Body"])] += 1
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return found
