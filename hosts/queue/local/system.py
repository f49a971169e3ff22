"""The whole queue on this machine: stand-in for AWS, topology, front door over HTTP, workers."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from hosts.queue.front.publish import Front
from hosts.queue.front.settings import Settings
from hosts.queue.local import gateway, stand_in, topology, workers
from hosts.queue.local.topology import Topology

KEY = "demo-key"
RUNTIMES = {"embedded": "embedded.safetensors"}


class Client:
    """Calls the front door as any client would."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; an error status raises."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"x-api-key": KEY, "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def system(
    kind: str, folder: Path, worker: Mapping[str, str] | None = None, count: int = 1, port: int = 0
) -> Iterator[tuple[Client, Topology, Any]]:
    """Everything, started: (client, topology, boto3 session).

    Args:
        kind: moto or ministack.
        folder: for logs.
        worker: environment of the workers.
        count: of workers.
        port: of the front door; 0: any that is free.
    """
    with stand_in.serve(kind, folder / "aws.log") as endpoint:
        local = _Local(boto3.Session("local", "local", region_name=stand_in.REGION), endpoint)
        made = topology.create(local, "demo", RUNTIMES)
        settings = Settings(made.tasks_topic, made.bucket, RUNTIMES, made.dynamic)
        door = Front(settings, local.client("sns"), local.client("s3"))
        environment = {
            **stand_in.environment(endpoint),
            **workers.settings(made, "embedded"),
            **(worker or {}),
        }
        with (
            _crew(folder / "worker.log", environment, count),
            gateway.serve(door, {KEY: KEY}, port) as url,
        ):
            yield Client(url), made, local


@contextmanager
def _crew(log: Path, environment: dict[str, str], count: int) -> Iterator[None]:
    """So many workers, ready; they share a log."""
    crew: list[tuple[subprocess.Popen[bytes], int]] = []
    try:
        for _ in range(count):
            port = stand_in.free_port()
            crew.append((workers.start(log, {**environment, "WORKER_PORT": str(port)}), port))
        for process, port in crew:
            workers.wait_ready(process, port, log)
        yield
    finally:
        for process, _ in crew:
            process.terminate()
        for process, _ in crew:
            process.wait(120)


class _Local:
    """A session whose clients talk to the stand-in."""

    def __init__(self, session: Any, endpoint: str) -> None:
        self._session, self._endpoint = session, endpoint

    def client(self, service: str) -> Any:
        """Return a client, as boto3's function of this name does."""
        return self._session.client(service, endpoint_url=self._endpoint)
