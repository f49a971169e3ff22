"""Load on a real deployment of the queue, with locust, and an account of what became of it.

    pip install locust
    QUEUE_API_KEY=... locust -f benchmarks/locustfile.py --host URL --headless -u 50 -r 5 -t 5m

`URL` is the module's output `url`. A user sends a task, asks for its status until it has ended, and
only then sends the next. Beside the calls, locust's table has a row `task` whose times are from
sending to completion; a task that failed or took over QUEUE_PATIENCE_S (default 600) is a failure
there. At the end the completed, failed and overdue ones are counted.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from typing import Any

from locust import HttpUser, constant, events, task

RUNTIME = os.environ.get("QUEUE_RUNTIME", "sd15")
PATIENCE_S = float(os.environ.get("QUEUE_PATIENCE_S", "600"))
STEPS = int(os.environ.get("QUEUE_STEPS", "20"))
SIZE = int(os.environ.get("QUEUE_SIZE", "512"))
ended: Counter[str] = Counter()


class Client(HttpUser):
    """Somebody who waits for an image before asking for the next."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self.client.headers["x-api-key"] = os.environ.get("QUEUE_API_KEY", "")

    @task
    def draw(self) -> None:
        """One task, to its end."""
        id, started = f"load-{uuid.uuid4().hex}", time.perf_counter()
        answer = self.client.post("/v1alpha2", json=_body(id), name="POST /v1alpha2")
        status = self._wait(id, started) if answer.ok else "refused"
        ended[status] += 1
        events.request.fire(
            request_type="TASK",
            name="task",
            response_time=1000 * (time.perf_counter() - started),
            response_length=0,
            exception=None if status == "completed" else RuntimeError(status),
        )

    def _wait(self, id: str, started: float) -> str:
        path = f"/v1alpha2/tasks/{id}?prefix=load"
        while time.perf_counter() - started < PATIENCE_S:
            answer = self.client.get(path, name="GET /v1alpha2/tasks")
            if answer.ok and answer.json()["status"] != "queued":
                return str(answer.json()["status"])
            time.sleep(1)
        return "overdue"


@events.quitting.add_listener
def report(environment: Any, **_: Any) -> None:
    """The account, in one line."""
    print("tasks:", ", ".join(f"{count} {status}" for status, count in sorted(ended.items())))


def _body(id: str) -> dict[str, Any]:
    metadata = {"id": id, "runtime": RUNTIME, "tasktype": "text-to-image", "prefix": "load"}
    content = {
        "prompt": "View of a cyberpunk city",
        "steps": STEPS,
        "width": SIZE,
        "height": SIZE,
    }
    return {"task": {"metadata": metadata, "content": content}}
