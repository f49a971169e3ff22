"""Real worker processes, as their pods would run them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from hosts.queue.local.topology import Topology

ROOT = Path(__file__).resolve().parents[3]
FOREIGN = ("SD_", "WORKER_")  # settings of whoever starts us are not the workers'


def settings(topology: Topology, runtime: str) -> dict[str, str]:
    """A worker's environment."""
    return {
        "WORKER_QUEUE_URLS": ",".join(topology.queues[runtime]),
        "WORKER_DEAD_LETTER_URL": topology.dead_letters,
        "WORKER_TOPIC_ARN": topology.results_topic,
        "WORKER_BUCKET": topology.bucket,
        "WORKER_HOST": "127.0.0.1",
    }


def start(log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A worker process of its own; what it prints is appended to `log`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "hosts.queue.worker"],
            cwd=ROOT,
            env={**inherited, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def wait_ready(
    process: subprocess.Popen[bytes], port: int, log: Path, timeout: float = 900
) -> None:
    """Until /readyz says so; a worker that ends or stays silent is an error with its log."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the worker is not ready:\n{log.read_text()[-4000:]}")
