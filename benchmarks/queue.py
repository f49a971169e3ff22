"""`python -m benchmarks.queue` measures what the engine's batching gives a queue worker.

Two real worker processes each have a local replacement of AWS. One takes as many tasks as fill the
engine; the other takes one task at a time, as the agents of the reference system do. Rounds
alternate, so that other work on the machine slows both. A round's time is from the first task sent
to the last completion message.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hosts.queue.local import stand_in
from hosts.queue.local.system import Client, system
from hosts.queue.local.topology import Topology

ALONE = {"WORKER_IN_FLIGHT": "1", "WORKER_RESERVE": "0"}
ARMS: dict[str, dict[str, str]] = {"one at a time": ALONE, "batched": {}}


@dataclass
class Arm:
    """An arm is a worker, and what it has done."""

    name: str
    client: Client
    topology: Topology
    sqs: Any
    seconds: float = 0.0
    images: int = 0
    sent: int = field(default=0)

    def round(self, count: int, steps: int, size: int) -> float:
        """Return the seconds for so many tasks."""
        started = time.perf_counter()
        for _ in range(count):
            self.sent += 1
            self.client.call("POST", "/v1alpha2", _task(f"task-{self.sent}", steps, size))
        done = 0
        while done < count:
            done += self._receive()
        return time.perf_counter() - started

    def measure(self, count: int, steps: int, size: int) -> None:
        """Run a round, and add its seconds and images to the totals."""
        self.seconds += self.round(count, steps, size)
        self.images += count

    @property
    def rate(self) -> float:
        """Return the images per second."""
        return self.images / self.seconds

    def _receive(self) -> int:
        queue = self.topology.watch
        got = self.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        messages = got.get("Messages", [])
        for message in messages:
            reported = json.loads(message["Body"])
            if not reported["result"]:
                raise RuntimeError(f"a task failed: {reported}")
            self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return len(messages)


def run(kind: str, *, rounds: int, tasks: int, steps: int, size: int, **worker: str) -> list[Arm]:
    """Run both arms; `worker` is environment for both."""
    with ExitStack() as stack:
        arms = []
        for name, settings in ARMS.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            client, made, session = stack.enter_context(
                system(kind, folder, {"WORKER_POLL_S": "5", **settings, **worker})
            )
            arms.append(Arm(name, client, made, session.client("sqs")))
        for arm in arms:
            arm.round(4, 2, size)
        for _ in range(rounds):
            for arm in arms:
                arm.measure(tasks, steps, size)
        return arms


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--aws", choices=stand_in.KINDS, default="moto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=32, help="per round")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=128)
    arguments = vars(parser.parse_args())
    alone, batched = run(arguments.pop("aws"), **arguments)
    print("| worker | tasks/s | ratio |\n|---|---|---|")
    for arm in (alone, batched):
        print(f"| {arm.name} | {arm.rate:.2f} | {arm.rate / alone.rate:.2f} |")


def _task(id: str, steps: int, size: int) -> dict[str, Any]:
    metadata = {"id": id, "runtime": "embedded", "tasktype": "text-to-image", "prefix": "bench"}
    content = {
        "prompt": "View of a cyberpunk city",
        "steps": steps,
        "width": size,
        "height": size,
        "sampler_name": "DPM++ 2M",
        "cfg_scale": 4.0,
    }
    return {"task": {"metadata": metadata, "content": content}}


if __name__ == "__main__":
    main()
