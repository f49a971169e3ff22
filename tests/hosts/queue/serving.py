"""`python -m hosts.queue.local.serve` under test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hosts.queue.local.workers import ROOT


@contextmanager
def serving(
    log: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """(the front door's address, the process) on a free port; it is told to stop afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "hosts.queue.local.serve", "--port", "0", *options],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _address(process, log), process
    finally:
        process.terminate()
        process.wait(180)


def _address(process: subprocess.Popen[bytes], log: Path, timeout: float = 900) -> str:
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"^(http://\S+) takes tasks", log.read_text(), re.M):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"it does not serve:\n{log.read_text()[-4000:]}")
