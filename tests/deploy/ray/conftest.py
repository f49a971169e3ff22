"""One Ray Serve application for all tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.server import Server, run


@contextmanager
def serve_ray(
    folder: Path, *arguments: str, ready: bool = True, **settings: str
) -> Iterator[Server]:
    """`python -m deploy.ray` with a cluster and a token of its own."""
    environment = {"SD_THREADS": "1", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), **settings}
    (folder / "token").write_text("0" * 64)
    command = [sys.executable, "-m", "deploy.ray", *arguments]
    with run(command, folder / "log", ready, environment) as server:
        yield server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The application of deploy/ray/serve.yaml with the embedded model."""
    with serve_ray(tmp_path_factory.mktemp("ray"), "--cpus", "2") as running:
        yield running
