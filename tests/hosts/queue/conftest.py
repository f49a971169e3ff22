"""Stand-ins of AWS, and one real worker each, on a topology of its own."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from deploy.check import terraform
from hosts.queue.front.publish import Front
from hosts.queue.front.settings import Settings
from hosts.queue.local import stand_in, topology
from hosts.queue.local.topology import Topology
from tests.long import long

MODULE = Path(__file__).resolve().parents[3] / "deploy" / "queue" / "terraform"
Module = tuple[Path, Callable[..., str]]
MODEL = "v1-5.safetensors"
PAYING = "key-of-a-paying-user"


#: What `make queue-demo` installs. moto, too, with LONG=1; test_policies.py is always on it.
ALWAYS, *OTHERS = stand_in.KINDS


@pytest.fixture(
    scope="session", params=[ALWAYS, *(pytest.param(kind, marks=long) for kind in OTHERS)]
)
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[str]:
    """Where a stand-in answers."""
    with stand_in.serve(request.param, tmp_path_factory.mktemp("aws") / "log") as url:
        yield url


@pytest.fixture(scope="session")
def aws(endpoint: str) -> boto3.Session:
    """A session whose clients talk to the stand-in."""
    session = boto3.Session("local", "local", region_name=stand_in.REGION)
    client = session.client
    session.client = lambda name, **given: client(  # type: ignore[method-assign, assignment]
        name, endpoint_url=endpoint, **given
    )
    return session


@pytest.fixture(scope="session")
def make_system(aws: boto3.Session) -> Callable[[], tuple[Topology, Front]]:
    """make_system() is a fresh topology and the front door to it."""
    numbers = itertools.count()

    def make() -> tuple[Topology, Front]:
        made = topology.create(aws, f"sd-{next(numbers)}", {"sd15": MODEL})
        settings = Settings(
            topic=made.tasks_topic,
            bucket=made.bucket,
            runtimes=made.runtimes,
            dynamic=made.dynamic,
            priority_keys=frozenset({PAYING}),
        )
        return made, Front(settings, aws.client("sns"), aws.client("s3"))

    return make


@pytest.fixture(scope="session")
def log(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("workers") / "log"
    return path


@pytest.fixture(scope="session")
def make_module() -> Callable[[Path], Module]:
    """make_module(folder) is a copy of the Terraform module, initialised, and run(command...)."""

    def make(folder: Path) -> Module:
        module = folder / "module"
        shutil.copytree(MODULE, module, ignore=shutil.ignore_patterns(".terraform*"))
        environment = terraform.configuration(folder)

        def run(*command: str, **more: str) -> str:
            return terraform.run(["terraform", *command], module, {**environment, **more})

        run("init", "-input=false", "-backend=false")
        return module, run

    return make


@pytest.fixture
def module(make_module: Callable[[Path], Module], tmp_path: Path) -> Module:
    """A copy of the Terraform module of one test's own."""
    return make_module(tmp_path)
