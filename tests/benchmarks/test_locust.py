"""The locust files run, headless, against a real service and a real queue."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hosts.queue.local.system import KEY
from hosts.queue.local.workers import ROOT
from tests.hosts.queue.serving import serving
from tests.service.server import Server

OWN = ROOT / ".venv-load" / "bin" / "locust"
LOCUST = str(OWN) if OWN.exists() else shutil.which("locust")
#: exit status, what it printed, requests by "METHOD name"
Ran = tuple[int, str, dict[str, int]]
Locust = Callable[..., Ran]
pytestmark = pytest.mark.skipif(LOCUST is None, reason="locust is not installed: make load-tools")


@pytest.fixture(scope="module")
def locust() -> Locust:
    """Return locust(file, url, *options, **environment)."""

    def run(file: str, url: str, *options: str, **environment: str) -> Ran:
        files = f"benchmarks/{file},tests/benchmarks/end_after.py"
        load = ["--headless", "--json", "-u", "4", "-r", "4", "--stop-timeout", "120"]
        done = subprocess.run(
            [str(LOCUST), "-f", files, "--host", url, *load, *options],
            cwd=ROOT,
            env={**os.environ, "END_AFTER": "6", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        reported = done.stdout + done.stderr
        table = re.search(r"^\[$.*?^\]$", done.stdout, re.M | re.S)
        assert table, reported
        rows = json.loads(table[0])
        return (
            done.returncode,
            reported,
            {f"{r['method']} {r['name']}": r["num_requests"] for r in rows},
        )

    return run


@pytest.mark.parametrize(
    ("kind", "row"), [("txt2img", "POST /txt2img"), ("imagine", "GET /imagine")]
)
def test_images(locust: Locust, server: Server, kind: str, row: str) -> None:
    code, reported, counted = locust("locust_images.py", server.url, "-T", kind, STEPS="2")
    assert code == 0, reported  # 1 after any failure
    assert counted[row] >= 1


def test_an_error_is_reported_in_the_services_words(locust: Locust, server: Server) -> None:
    code, reported, counted = locust("locust_images.py", server.url, "-T", "txt2img", STEPS="1000")
    assert code == 1 and counted["POST /txt2img"] >= 1
    assert "400: " in reported and "num_inference_steps" in reported


@pytest.fixture(scope="module")
def queue(
    tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield a queue with one worker."""
    settings = [f"SD_MODEL={tiny_model('sd1')}", "SD_THREADS=1", "WORKER_POLL_S=1"]
    options = [part for one in settings for part in ("--set", one)]
    with serving(tmp_path_factory.mktemp("queue") / "log", *options) as (url, _):
        yield url


def test_queue(locust: Locust, queue: str) -> None:
    small = {"QUEUE_RUNTIME": "embedded", "QUEUE_STEPS": "2", "QUEUE_SIZE": "64"}
    code, reported, counted = locust(
        "locustfile.py", queue, QUEUE_API_KEY=KEY, QUEUE_POLL_S="0.2", **small
    )
    assert code == 0, reported
    account = re.search(r"^tasks: (\d+) completed, 0 refused, 0 unfinished$", reported, re.M)
    assert account, reported
    assert int(account[1]) == counted["TASK completed"] == counted["POST /v1alpha2"] >= 1


def test_what_did_not_complete_is_a_failure(locust: Locust, queue: str) -> None:
    wanted = {"QUEUE_RUNTIME": "embedded", "QUEUE_SIZE": "64", "QUEUE_POLL_S": "0.2"}
    code, reported, counted = locust("locustfile.py", queue, QUEUE_API_KEY="wrong", **wanted)
    assert code == 1 and counted["POST /v1alpha2"] >= 1
    assert f"tasks: {counted['POST /v1alpha2']} refused, 0 unfinished" in reported
    arguments = {**wanted, "QUEUE_PATIENCE_S": "0", "QUEUE_STEPS": "2"}
    code, reported, counted = locust("locustfile.py", queue, QUEUE_API_KEY=KEY, **arguments)
    assert code == 1 and counted["TASK overdue"] >= 1, reported
