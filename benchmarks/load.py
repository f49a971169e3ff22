"""In a closed load over HTTP, each client sends its next request after its last answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

BODY = {"prompt": "sea", "num_inference_steps": 4}


@dataclass(frozen=True)
class Answer:
    """An answer ends a request; `status` 0 stands for no HTTP answer; `sent` is time.monotonic."""

    status: int
    sent: float
    seconds: float
    retry_after: str | None = None
    text: str = ""


@dataclass
class Load:
    """A load collects the answers that its clients have received so far."""

    url: str
    body: dict[str, Any]
    answers: list[Answer] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def statuses(self) -> dict[int, int]:
        return dict(Counter(answer.status for answer in self.answers))

    def wait_for(self, count: int, timeout: float = 120, *, drawn: bool = False) -> None:
        """Wait until so many more answers have come.

        Args:
            drawn: count images only.
        """

        def come() -> int:
            return self.statuses().get(200, 0) if drawn else len(self.answers)

        wanted, end = come() + count, time.monotonic() + timeout
        while come() < wanted:
            if time.monotonic() > end:
                raise TimeoutError(f"{come()} of {wanted} answers: {self.statuses()}")
            time.sleep(0.02)

    def client(self, number: int) -> None:
        """Send requests until the load is stopped."""
        with httpx.Client(timeout=300) as connection:
            while not self.stopped.is_set():
                answer = ask(connection, self.url, {**self.body, "seed": number})
                self.answers.append(answer)
                if answer.status != 200:
                    self.stopped.wait(0.2)


def ask(connection: httpx.Client, url: str, body: dict[str, Any]) -> Answer:
    """Send one request and time it."""
    sent = time.monotonic()
    try:
        response = connection.post(f"{url}/txt2img", json=body)
    except httpx.TransportError as error:
        return Answer(0, sent, time.monotonic() - sent, text=repr(error))
    text = "" if response.status_code == 200 else response.text
    retry_after = response.headers.get("retry-after")
    return Answer(response.status_code, sent, time.monotonic() - sent, retry_after, text)


@contextmanager
def load(url: str, clients: int, body: dict[str, Any] | None = None) -> Iterator[Load]:
    """Run clients for as long as the block runs; wait for their last answers afterwards."""
    running = Load(url, body or BODY)
    threads = [threading.Thread(target=running.client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        running.stopped.set()
        for thread in threads:
            thread.join()
