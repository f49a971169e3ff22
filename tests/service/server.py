"""A real `bentoml serve` process under test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from httpx._config import DEFAULT_TIMEOUT_CONFIG

from tests import contexts

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that an answer may take where a test says nothing: httpx's 5 are few on a busy machine.
DEFAULT_TIMEOUT_CONFIG.read = 300
contexts.share()


@dataclass
class Server:
    """A running service: its address, its process, and what it printed."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """SIGTERM to its process group, as a container's stop; returns the exit status."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        return self.process.wait(timeout=300)


@contextmanager
def serve(
    log: Path, target: str = "service:svc", ready: bool = True, **environment: str
) -> Iterator[Server]:
    """Serve on a free port of the loopback interface; ready when it yields, unless told not to."""
    command = [sys.executable, "-m", "bentoml", "serve", target]
    settings = {
        "BENTOML_CONFIG": str(ROOT / "configuration.yaml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": f"{log}-home",  # a service that starts empties the metrics kept in it
        "SD_THREADS": "1",
    }
    with run(command, log, ready, {**settings, **environment}) as server:
        yield server


@contextmanager
def run(
    command: list[str],
    log: Path,
    ready: bool,
    environment: dict[str, str],
    timeout: float = 900,
) -> Iterator[Server]:
    """A host that takes `--host` and `--port`, as its own process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "SD_JOBS_DIR": f"{log}-jobs", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        if ready:
            wait_ready(server, timeout)
        yield server
    finally:
        _end(server)


def _end(server: Server) -> None:
    """Stop, and kill what is left: a killed parent orphans its workers, who lead their sessions."""
    if server.process.poll() is not None:
        return
    children = psutil.Process(server.process.pid).children(recursive=True)
    try:
        server.stop()
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    for child in alive:
        child.kill()


def wait_ready(server: Server, timeout: float = 900) -> None:
    """Poll /readyz; a service that ends or stays silent is an error with its log."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and server.process.poll() is None:
        try:
            if httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"not ready:\n{server.log.read_text()[-4000:]}")
