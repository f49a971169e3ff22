"""One Ray Serve application for all tests of this folder."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from hosts.ray.__main__ import CONFIG
from runnables.settings import EMBEDDED_MODEL
from tests import tiny
from tests.service.server import Server, run


@contextmanager
def serve_ray(
    folder: Path, *arguments: str, ready: bool = True, **settings: str
) -> Iterator[Server]:
    """`python -m hosts.ray` with a cluster and a token of its own."""
    environment = {
        "SD_THREADS": "1",
        "RAY_DEDUP_LOGS": "0",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        **settings,
    }
    (folder / "token").write_text("0" * 64)
    command = [sys.executable, "-m", "hosts.ray", *arguments]
    with run(command, folder / "log", ready, environment, timeout=900) as server:
        try:
            yield server
        finally:
            stop(server)


def stop(server: Server) -> int:
    """SIGTERM to the one process: to the whole group it would end Ray under the application."""
    server.process.send_signal(signal.SIGTERM)
    return server.process.wait(timeout=300)


def config(
    folder: Path,
    replicas: int,
    models: Mapping[str, Path] | None = None,
    scaling: Mapping[str, float] | None = None,
    **env: str,
) -> Path:
    """The config in the tree with a fixed number of replicas, or other `scaling`."""
    content: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    (app,) = content["applications"]
    app["args"] = {"models": {name: str(source) for name, source in (models or {}).items()}}
    app["runtime_env"]["env_vars"] |= env
    for deployment in app["deployments"]:
        if deployment["name"] == "replica":
            fixed = {"min_replicas": replicas, "max_replicas": replicas}
            deployment["autoscaling_config"] |= {**fixed, **(scaling or {})}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def on_replicas(path: Path, runtime_env: Mapping[str, Any]) -> Path:
    """The same config; only replicas get this, as they may be on other machines."""
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    (app,) = content["applications"]
    for deployment in app["deployments"]:
        if deployment["name"] == "replica":
            deployment["ray_actor_options"]["runtime_env"] = dict(runtime_env)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(scope="package")  # no longer than it is used: an idle Ray takes a tenth of a core
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The application of deploy/ray/serve.yaml with the embedded model and two replicas."""
    folder = tmp_path_factory.mktemp("ray")
    tiny.build_controlnet(folder / "controlnets" / "one", Path(EMBEDDED_MODEL))
    path = config(folder, 2)
    nets = {"env_vars": {"SD_CONTROLNET_DIR": str(folder / "controlnets")}}
    arguments = (str(on_replicas(path, nets)), "--cpus", "2", "--dashboard")
    with serve_ray(folder, *arguments) as running:
        yield running
