"""bentoctl's environment, and a stand-in for AWS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".venv-deploy" / "bin"
needs_terraform = pytest.mark.skipif(
    shutil.which("terraform") is None, reason="terraform is not installed"
)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def tools() -> Path:
    """The programs of `make deploy-tools`."""
    assert (TOOLS / "bentoctl").exists(), "run `make deploy-tools` first, as `make test` does"
    return TOOLS


@pytest.fixture
def run(tools: Path, tmp_path: Path) -> Run:
    """run(program, *arguments, **environment) in an empty folder, with a bentoctl home there."""
    home = {"BENTOCTL_HOME": str(tmp_path / "home"), "BENTOML_HOME": str(tmp_path / "bentoml")}

    def call(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = str(tools / program) if (tools / program).exists() else program
        return subprocess.run(
            [path, *arguments],
            cwd=tmp_path,
            env={**os.environ, **home, "NO_COLOR": "1", **environment},
            text=True,
            capture_output=True,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def aws(tools: Path) -> Iterator[dict[str, str]]:
    """Environment that points AWS clients at a local moto server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    quiet = subprocess.DEVNULL
    command = [tools / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as server:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        server.terminate()
