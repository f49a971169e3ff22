"""`bentoml serve` runs here in its own process, as users start it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
        wait_ready(url, process)
        yield url, process
    finally:
        workers = process.children(recursive=True)  # they outlive a killed parent
        for one in (process, *workers):
            one.kill()
        psutil.wait_procs([process, *workers])
        jobs.cleanup()


def wait_ready(url: str, process: subprocess.Popen[bytes] | psutil.Popen) -> None:
    """Wait until a service is ready. Raise RuntimeError where its process ends before that."""
    while process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=5) as response:
            if response.status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError("the service ended before it was ready")


def post(url: str, body: dict[str, Any]) -> None:
    """Request an image of a service, and read it to the end."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/txt2img", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=600) as response:
        response.read()
