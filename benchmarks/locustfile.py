"""This locust file puts a load on the queue, and counts how every task ended.

    make load-tools
    QUEUE_API_KEY=... .venv-load/bin/locust -f benchmarks/locustfile.py --host URL \
        --headless -u 50 -r 5 -t 5m --stop-timeout 600

`URL` is the Terraform module's output `url`, or what `make queue-serve` prints. A user sends a
task, asks for its status until it has ended, and only then sends the next. Beside the calls,
locust's table has a row for each way in which tasks ended, `completed`, `failed`, ..., with the
times from sending to the end; all but the first are failures there. Tasks over QUEUE_PATIENCE_S
(default 600) are `overdue`. The account at the end counts also those that locust's own end left
`unfinished`: `--stop-timeout` lets users see theirs through.
"""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

from locust import HttpUser, constant, events, task
from locust.runners import WorkerRunner

RUNTIME = os.environ.get("QUEUE_RUNTIME", "sd15")
PATIENCE_S = float(os.environ.get("QUEUE_PATIENCE_S", "600"))
POLL_S = float(os.environ.get("QUEUE_POLL_S", "1"))
STEPS = int(os.environ.get("QUEUE_STEPS", "20"))
SIZE = int(os.environ.get("QUEUE_SIZE", "512"))
SEND, ASK, ENDED = "/v1alpha2", "/v1alpha2/tasks", "TASK"


class Client(HttpUser):
    """This user waits for an image before requesting the next."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self.client.headers["x-api-key"] = os.environ.get("QUEUE_API_KEY", "")

    @task
    def send(self) -> None:
        """Send one task, and wait for its end."""
        id, started = f"load-{uuid.uuid4().hex}", time.perf_counter()
        if not self.client.post("/v1alpha2", json=_body(id), name=SEND).ok:
            time.sleep(POLL_S)  # throttled, most likely
            return
        status = self._wait(id, started)
        events.request.fire(
            request_type=ENDED,
            name=status,
            response_time=1000 * (time.perf_counter() - started),
            response_length=0,
            exception=None if status == "completed" else RuntimeError(status),
        )

    def _wait(self, id: str, started: float) -> str:
        path = f"/v1alpha2/tasks/{id}?prefix=load"
        while time.perf_counter() - started < PATIENCE_S:
            time.sleep(POLL_S)
            answer = self.client.get(path, name=ASK)
            if answer.ok and answer.json()["status"] != "queued":
                return str(answer.json()["status"])
        return "overdue"


@events.quitting.add_listener
def report(environment: Any, **_: Any) -> None:
    """Print how tasks ended, in one line for all processes."""
    if isinstance(environment.runner, WorkerRunner):
        return
    stats = environment.stats
    sent = stats.get(SEND, "POST")
    ended = {
        entry.name: entry.num_requests for entry in stats.entries.values() if entry.method == ENDED
    }
    accepted = sent.num_requests - sent.num_failures
    reported = {**ended, "refused": sent.num_failures, "unfinished": accepted - sum(ended.values())}
    print("tasks:", ", ".join(f"{count} {status}" for status, count in reported.items()))


def _body(id: str) -> dict[str, Any]:
    metadata = {"id": id, "runtime": RUNTIME, "tasktype": "text-to-image", "prefix": "load"}
    content = {
        "prompt": "View of a cyberpunk city",
        "steps": STEPS,
        "width": SIZE,
        "height": SIZE,
    }
    return {"task": {"metadata": metadata, "content": content}}
