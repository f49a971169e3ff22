"""A stand-in for AWS: moto's server, on the loopback interface, as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deploy.check.ready import DEPLOY, Ready


class StandIn:
    """A running moto server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.env = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self, service: str, region: str = "us-east-1") -> Any:
        """A boto3 client of the stand-in."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id="none",
            aws_secret_access_key="none",
            config=Config(read_timeout=600),  # a busy machine's stand-in takes its time
        )


@contextlib.contextmanager
def stand_in() -> Iterator[StandIn]:
    """Start moto on a free port, and end it afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = str(Path(sys.executable).with_name("moto_server"))
    command = [program, "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    # AWS-managed policies are there only if asked for
    env = {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    process = subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet)
    try:
        running = StandIn(port)
        _wait(running, process)
        yield running
    finally:
        process.terminate()
        process.wait()


def _wait(running: StandIn, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{running.url}/moto-api/", timeout=10).close()
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError("moto_server did not start")


class Overrides:
    """The files that apply an operator on the stand-in: `deploy/operators/NAME/stand_in/`.

    `*_override.tf` are laid beside the generated files (Terraform merges them), for what moto
    lacks. `prepare.py`, if any, has `prepare(document, client) -> document`: it makes what a
    configuration takes for granted (a VPC, a certificate) through `client(service)`, and puts its
    ids in.
    """

    def __init__(self, one: Ready) -> None:
        self.folder = one.operator / "stand_in"

    def lay(self, target: Path) -> None:
        """Copy the override files."""
        for path in self.folder.glob("*_override.tf"):
            shutil.copy(path, target)
        if (target / "queue").is_dir():
            lacking = DEPLOY / "queue" / "terraform" / "stand_in" / "moto_override.tf"
            shutil.copy(lacking, target / "queue")
            # in the place of the front door's package, which pip would have to fetch
            with zipfile.ZipFile(target / "front.zip", "w") as package:
                package.writestr("front.py", "")

    def prepare(self, document: dict[str, Any], client: Callable[[str], Any]) -> dict[str, Any]:
        """The configuration, fit for the stand-in."""
        path = self.folder / "prepare.py"
        if not path.exists():
            return document
        # by path: two operators' files of the same name must not meet in sys.modules
        found = importlib.util.spec_from_file_location(f"prepare_{self.folder.parent.name}", path)
        assert found and found.loader
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        prepared: dict[str, Any] = module.prepare(document, client)
        return prepared
