"""Stand-ins of AWS on the loopback interface: ministack, or moto's server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REGION = "us-east-1"
KINDS = ("ministack", "moto")  # the first is what `make queue-demo` installs


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(endpoint: str) -> dict[str, str]:
    """Return the environment that makes every AWS SDK talk to a stand-in."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def serve(kind: str, log: Path, port: int = 0) -> Iterator[str]:
    """Yield the endpoint once it answers; the stand-in is stopped afterwards."""
    port = port or free_port()
    commands = {
        "moto": ["moto.server", "-H", "127.0.0.1", "-p", str(port)],
        "ministack": ["hypercorn", "ministack.app:app", "--bind", f"127.0.0.1:{port}"],
    }
    settings = {"MINISTACK_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)}
    endpoint = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *commands[kind]],
            env={**os.environ, **environment(endpoint), **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(endpoint, process, log)
        yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=2)
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the stand-in does not answer:\n{log.read_text()[-2000:]}")
