"""`bentoml serve` runs here in its own process, as users start it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(model: str, **environment: str) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the address of a ready service, and its process; end all its processes afterwards.

    Args:
        environment: further variables, settings for example.
    """
    port = str(free_port())
    command = [sys.executable, "-m", "bentoml", "serve", "service:svc", "--host", "127.0.0.1"]
    settings = {"SD_MODEL": model, "BENTOML_CONFIG": str(ROOT / "configuration.yaml")}
    jobs = tempfile.TemporaryDirectory(prefix="jobs-")
    settings["SD_JOBS_DIR"] = jobs.name
    process = psutil.Popen(
        [*command, "--port", port],
        cwd=ROOT,
        env={**os.environ, "BENTOML_DO_NOT_TRACK": "True", **settings, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # as every host's processes: Linux shares cores between sessions
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while not _ready(f"{url}/readyz"):
            if process.poll() is not None:
                raise RuntimeError("the service ended before it was ready")
            time.sleep(0.05)
        yield url, process
    finally:
        workers = process.children(recursive=True)  # they outlive a killed parent
        for one in (process, *workers):
            one.kill()
        psutil.wait_procs([process, *workers])
        jobs.cleanup()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
