"""The local queue that keeps running: it draws as documented, and ends whole on SIGTERM."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from hosts.queue.local.workers import ROOT
from tests.hosts.queue.serving import serving

DOCUMENT = (ROOT / "docs" / "queue.md").read_text().splitlines()
EXAMPLES = [line for line in DOCUMENT if line.startswith("curl")]


def curl(example: str, url: str) -> Callable[[], Any]:
    """A documented call, as printed but for the port; calling it gives the answer's JSON."""
    command = example.replace("http://127.0.0.1:3001", url)
    assert command != example
    return lambda: json.loads(subprocess.check_output(["bash", "-ec", command], timeout=300))


def test_tasks_until_sigterm(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    settings = [f"SD_MODEL={tiny_model('sd1')}", "SD_THREADS=1", "WORKER_POLL_S=1"]
    options = [part for one in settings for part in ("--set", one)]
    logs = tmp_path / "logs"
    with serving(tmp_path / "out", "--workers", "2", "--logs", str(logs), *options) as started:
        url, process = started
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3  # the stand-in and two workers
        send, ask = (curl(line, url) for line in EXAMPLES)
        assert send() == {
            "id": "order-17",
            "runtime": "embedded",
            "output_location": "s3://demo/shop/order-17",
        }
        end = time.monotonic() + 300
        while (told := ask())["status"] == "queued":
            assert time.monotonic() < end, (logs / "worker.log").read_text()[-4000:]
            time.sleep(0.1)
        assert told["status"] == "completed" and len(told["images"]) == 1
        process.terminate()
        assert process.wait(300) == 0
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []


def test_a_setting_of_somebody_else_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hosts.queue.local.serve", "--set", "PATH=/"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "'PATH=/' is not SD_NAME=VALUE" in done.stderr
