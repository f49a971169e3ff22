"""Losses and updates under load: nobody gets anything but an image, or 503 with Retry-After."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks.load import Load, load
from tests.hosts.ray.conftest import config
from tests.long import LONG, long
from tests.service.server import ROOT, Server

CLIENTS = 4
LOAD = 100 if LONG else 2 * CLIENTS  # answers before, at and after a loss


def replicas(server: Server, deployment: str) -> list[psutil.Process]:
    """The processes of a deployment."""
    title = f"ray::ServeReplica:stable-diffusion:{deployment}"
    found = []
    for child in psutil.Process(server.process.pid).children(recursive=True):
        try:
            if child.cmdline() and child.cmdline()[0].startswith(title):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for(server: Server, deployment: str, count: int, timeout: float = 300) -> float:
    """Seconds until there are so many replicas."""
    started = time.monotonic()
    while len(replicas(server, deployment)) != count:
        if time.monotonic() > started + timeout:
            raise TimeoutError(f"{len(replicas(server, deployment))} of {count} {deployment}")
        time.sleep(0.1)
    return time.monotonic() - started


def kill_one(server: Server, deployment: str, running: Load) -> None:
    """kill -9 in the middle of the load, then let it go on until the service is whole again."""
    before = {one.pid for one in replicas(server, deployment)}
    running.wait_for(LOAD)
    os.kill(min(before), signal.SIGKILL)
    running.wait_for(LOAD)
    wait_for(server, deployment, len(before))
    assert {one.pid for one in replicas(server, deployment)} != before
    running.wait_for(LOAD)


def retried(server: Server) -> int:
    """Orders that were sent out again so far, as the ingress's log tells."""
    return len(re.findall(r"attempt \d+ of \w+ was lost", server.log.read_text()))


@pytest.fixture
def counted(
    server: Server, record_property: Callable[[str, object], None]
) -> Callable[[Load], dict[str, int]]:
    """counted(load): how its requests ended, printed (`pytest -s`) and in the JUnit report."""
    before = retried(server)

    def count(running: Load) -> dict[str, int]:
        by_status = {str(status): n for status, n in sorted(running.statuses().items())}
        again = retried(server) - before
        counts = {"sent": len(running.answers), **by_status, "retried": again}
        for name, value in counts.items():
            record_property(name, value)
        print(counts)
        return counts

    return count


def test_orders_of_a_lost_replica_are_drawn_by_another(
    server: Server, counted: Callable[[Load], dict[str, int]]
) -> None:
    wait_for(server, "replica", 2)
    before = retried(server)
    with load(server.url, CLIENTS) as running:
        for _ in range(4):  # a replica that is idle when it is killed has no order to lose
            kill_one(server, "replica", running)
            if retried(server) > before:
                break
    counts = counted(running)
    assert counts["200"] == counts["sent"], running.answers
    assert counts["retried"] >= 1


def test_a_lost_ingress_is_told_as_503_and_comes_back(
    server: Server, counted: Callable[[Load], dict[str, int]]
) -> None:
    with load(server.url, CLIENTS) as running:
        kill_one(server, "ingress", running)
    counted(running)
    assert set(running.statuses()) <= {200, 503}, running.answers
    refused = [answer for answer in running.answers if answer.status == 503]
    assert len(refused) >= 1, "the requests in flight"
    for answer in refused:
        assert int(answer.retry_after or 0) >= 1
        assert '"error"' in answer.text
    assert httpx.get(f"{server.url}/readyz").status_code == 200


@long
def test_a_rolling_update_fails_no_request(
    server: Server, tmp_path: Path, counted: Callable[[Load], dict[str, int]]
) -> None:
    found = re.search(r"http://127\.0\.0\.1:\d+", server.log.read_text())
    assert found, "the dashboard takes deploys"
    before = {one.pid for one in replicas(server, "replica")}
    changed = config(tmp_path, 2, SD_METADATA="minimal")
    command = [sys.executable, "-m", "ray.serve.scripts", "deploy", "-a", found[0], changed]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(server.log.parent / "token")}
    with load(server.url, CLIENTS) as running:
        running.wait_for(CLIENTS)
        subprocess.run(command, cwd=ROOT, env={**os.environ, **token}, check=True, timeout=300)
        while before & {one.pid for one in replicas(server, "replica")}:
            running.wait_for(1)
        wait_for(server, "replica", 2)
        running.wait_for(2 * CLIENTS)
    counts = counted(running)
    assert counts["200"] == counts["sent"], running.answers
