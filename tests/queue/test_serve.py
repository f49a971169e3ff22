"""The local queue that keeps running: it draws, and ends whole on SIGTERM."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from deploy.queue.local.system import Client
from deploy.queue.local.workers import ROOT
from tests.queue.serving import serving


def test_tasks_until_sigterm(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    settings = [f"SD_MODEL={tiny_model('sd1')}", "SD_THREADS=1", "WORKER_POLL_S=1"]
    options = [part for one in settings for part in ("--set", one)]
    logs = tmp_path / "logs"
    with serving(tmp_path / "out", "--workers", "2", "--logs", str(logs), *options) as started:
        url, process = started
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3  # the stand-in and two workers
        metadata = {"id": "a", "runtime": "embedded", "tasktype": "text-to-image", "prefix": "p"}
        content = {"prompt": "x", "steps": 2, "width": 64, "height": 64}
        client = Client(url)
        client.call("POST", "/v1alpha2", {"task": {"metadata": metadata, "content": content}})
        end = time.monotonic() + 120
        while (told := client.call("GET", "/v1alpha2/tasks/a?prefix=p"))["status"] == "queued":
            assert time.monotonic() < end, (logs / "worker.log").read_text()[-4000:]
            time.sleep(0.1)
        assert told["status"] == "completed" and len(told["images"]) == 1
        process.terminate()
        assert process.wait(120) == 0
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []


def test_a_setting_of_somebody_else_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.queue.local.serve", "--set", "PATH=/"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "'PATH=/' is not SD_NAME=VALUE" in done.stderr
