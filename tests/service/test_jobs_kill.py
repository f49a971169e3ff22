"""Jobs through kill -9 and SIGTERM: every accepted one ends exactly once.

LONG=1 is the acceptance run; `make test` does fewer.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.long import LONG
from tests.service.server import Server, serve

N = 200 if LONG else 24
#: how the servers end, one after another; the last one stays
STOPS = ["kill", "kill", "kill", "term", "term", "term"] if LONG else ["kill", "term"]
FINAL = {"succeeded", "failed", "cancelled"}
#: written by SQLite itself, so that no second end of a job could hide: one line an end
TRIGGER = """
CREATE TABLE IF NOT EXISTS ends (id TEXT, state TEXT, at REAL);
CREATE TRIGGER IF NOT EXISTS ended AFTER UPDATE OF state ON jobs
WHEN NEW.state IN ('succeeded', 'failed', 'cancelled')
BEGIN INSERT INTO ends VALUES (NEW.id, NEW.state, NEW.finished); END;
"""


def ask(i: int) -> dict[str, Any]:
    """A mix: some are refused by nobody and yet fail (their deadline has passed at once)."""
    parameters = {"prompt": f"sea {i}", "seed": i, "num_inference_steps": 1 + i % 12}
    body: dict[str, Any] = {"id": f"job-{i}", "task": "txt2img", "parameters": parameters}
    if i % 10 == 9:
        body["deadline_s"] = 0.001
    if i % 4 == 3:
        parameters["num_images_per_prompt"] = 2
    return body


def post(url: str, body: dict[str, Any]) -> httpx.Response | None:
    try:
        return httpx.post(f"{url}/jobs", json=body, timeout=300)
    except httpx.TransportError:
        return None


class Clients:
    """Post every job until it is accepted, and sends again what was cut off, as clients do."""

    def __init__(self) -> None:
        self.url = ""
        self.accepted: set[str] = set()
        self._pending = list(range(N))
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._post) for _ in range(4)]
        self._rng = random.Random(1)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=300 + 6 * N)

    def _post(self) -> None:
        while True:
            with self._lock:
                if not self._pending:
                    return
                i = self._pending.pop(0)
            while True:
                answer = post(self.url, ask(i)) if self.url else None
                if answer is not None and answer.status_code in (200, 202):
                    break
                time.sleep(0.2)
            with self._lock:
                self.accepted.add(f"job-{i}")
            time.sleep(self._rng.random() * 0.2)


@contextmanager
def killable(folder: Path, log: Path) -> Any:
    with serve(log, SD_JOBS_DIR=str(folder), SD_JOBS_ACTIVE="8") as server:
        yield server


def kill(server: Server) -> None:
    """kill -9 for every process of the server, the parent first."""
    processes = [psutil.Process(server.process.pid)]
    processes += processes[0].children(recursive=True)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=300)
    server.process.wait()


def ended(folder: Path) -> int:
    connection = sqlite3.connect(folder / "jobs.sqlite3", timeout=300)
    try:
        return int(connection.execute("SELECT COUNT(*) FROM ends").fetchone()[0])
    finally:
        connection.close()


def watch_ends(folder: Path) -> None:
    connection = sqlite3.connect(folder / "jobs.sqlite3", timeout=300)
    connection.executescript(TRIGGER)
    connection.close()


def states(url: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    cursor = ""
    while cursor is not None:
        query = {"limit": "100", **({"cursor": cursor} if cursor else {})}
        page = httpx.get(f"{url}/jobs", params=query, timeout=300).json()
        found |= {job["id"]: job for job in page["jobs"]}
        cursor = page["next"]
    return found


def test_every_accepted_job_ends_once(tmp_path: Path) -> None:
    folder, clients = tmp_path / "jobs", Clients()
    for i, stop in enumerate(STOPS):
        with killable(folder, tmp_path / f"log-{i}") as server:
            watch_ends(folder)
            clients.url = server.url
            if i == 0:
                clients.start()
            wait_for(lambda i=i: ended(folder) >= N * (i + 1) // (len(STOPS) + 2))
            if stop == "kill":
                kill(server)
            else:
                server.stop()
    with killable(folder, tmp_path / "log-last") as server:
        clients.url = server.url
        clients.join()
        assert len(clients.accepted) == N
        wait_for(lambda: ended(folder) >= N)
        jobs = states(server.url)
        check(folder, server.url, jobs)


def check(folder: Path, url: str, jobs: dict[str, dict[str, Any]]) -> None:
    assert set(jobs) == {f"job-{i}" for i in range(N)}
    connection = sqlite3.connect(folder / "jobs.sqlite3")
    ends = connection.execute("SELECT id, state FROM ends").fetchall()
    interrupted = connection.execute("SELECT COUNT(*) FROM jobs WHERE attempts > 1").fetchone()[0]
    connection.close()
    counts = Counter(job["state"] for job in jobs.values())
    how = ", ".join(f"{stop} {count} times" for stop, count in Counter(STOPS).items())
    print(f"\n{N} jobs, {how}: {dict(counts)}, {interrupted} generated again")
    assert max(Counter(id for id, _ in ends).values()) == 1, "a job ended twice"
    assert {id: job["state"] for id, job in jobs.items()} == dict(ends)
    for i in range(N):
        job = jobs[f"job-{i}"]
        wanted = "failed" if i % 10 == 9 else "succeeded"
        assert job["state"] == wanted, job
        assert bool(job["error"]) == (wanted == "failed")
        if wanted == "succeeded":
            check_images(url, job, ask(i)["parameters"])


def check_images(url: str, job: dict[str, Any], parameters: dict[str, Any]) -> None:
    seeds = [image["seed"] for image in job["images"]]
    count = parameters.get("num_images_per_prompt", 1)
    assert seeds == [parameters["seed"] + j for j in range(count)]
    for image in job["images"]:
        answer = httpx.get(f"{url}{image['url']}", timeout=300)
        assert answer.status_code == 200
        assert answer.content[:2] == b"\xff\xd8"


def wait_for(condition: Any, timeout: float = 300 + 6 * N) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
