"""`make deploy-check`: all configurations validated, one applied, boot scripts as goldens.

The whole of it, every configuration applied, takes minutes of waiting: `make deploy-check`.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.check import steps
from deploy.check.ready import ready
from deploy.check.terraform import Failed
from tests.deploy.conftest import ROOT, needs_terraform

pytestmark = needs_terraform
GOLDEN = Path(__file__).parent / "golden"
Reports = dict[str, dict[str, Any]]


def command(tools: Path, *options: str, report: Path) -> list[str]:
    return [str(tools / "python"), "-m", "deploy.check", *options, "--report", str(report)]


def reports(path: Path) -> Reports:
    return {one["label"]: one for one in json.loads(path.read_text())}


@pytest.fixture(scope="module")
def checked(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Reports]:
    """checked(*options) runs the check and returns its reports by label."""

    def check(*options: str) -> Reports:
        report = tmp_path_factory.mktemp("check") / "report.json"
        run = command(tools, *options, report=report)
        done = subprocess.run(run, cwd=ROOT, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return reports(report)

    return check


@pytest.fixture(scope="module", autouse=True)
def applying(
    request: pytest.FixtureRequest, tools: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Reports]]:
    """One configuration made and destroyed in the background: it waits more than it works."""
    report = tmp_path_factory.mktemp("apply") / "report.json"
    run = command(tools, "--config", "ec2/deployment_config.yaml", report=report)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    wanted = any(item.name == "test_made_and_destroyed" for item in request.session.items)
    if not wanted:
        run = ["true"]
    process = subprocess.Popen(run, cwd=ROOT, text=True, start_new_session=True, **pipes)

    def finish() -> Reports:
        said, _ = process.communicate()
        assert process.returncode == 0, said
        return reports(report)

    yield finish
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)  # Terraform and moto, too
        process.wait()


def test_every_configuration_validates(checked: Callable[..., Reports]) -> None:
    found = checked("--operator", "aws-ec2", "--until", "validate", "--jobs", "2")
    assert set(found) == {f"ec2/{path.name}" for path in (ROOT / "deploy/ec2").glob("*.yaml")}
    assert len(found) >= 8


@pytest.mark.parametrize(("name", "kinds"), [("https", 18), ("inf2", 31)])
def test_boot_script_of_a_plan(checked: Callable[..., Reports], name: str, kinds: int) -> None:
    """Existing network, TLS, keys and a model in S3; and Inferentia2."""
    (report,) = checked("--config", f"ec2/{name}.yaml", "--until", "plan", "--no-tests").values()
    assert report["planned"] == kinds
    compare(report, name)


def test_made_and_destroyed(applying: Callable[[], Reports]) -> None:
    (report,) = applying().values()
    assert report["tests"] >= 6
    assert report["created"] == report["planned"] == report["destroyed"] == 30
    assert report["left"] == {}
    compare(report, "gpu")


def compare(report: dict[str, Any], name: str) -> None:
    """The boot script equals its golden; UPDATE_GOLDEN=1 writes it instead."""
    script = base64.b64decode(report["user_data"]).decode()
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    golden = GOLDEN / f"{name}.boot.sh"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(script)
    assert script == golden.read_text(), "UPDATE_GOLDEN=1 writes it anew, if that is meant"


@pytest.mark.parametrize(
    ("said", "runs"), [("read tcp: use of closed network connection", 2), ("no such subnet", 1)]
)
def test_a_lost_connection_is_no_finding(
    said: str, runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command goes on once, where the stand-in closed the connection of Go's client."""
    made = list[list[str]]()

    def failing(command: list[str], *_: object) -> str:
        made.append(command)
        raise Failed(said)

    monkeypatch.setattr(steps, "run", failing)
    (one,) = ready(name="ec2/deployment_config.yaml")
    with pytest.raises(Failed):
        steps.Deployment(one, tmp_path, None).run("terraform", "apply")
    assert made == [["terraform", "apply"]] * runs


def test_a_failure_is_a_failure(tools: Path, tmp_path: Path) -> None:
    run = command(tools, "--config", "no-such-file", report=tmp_path / "report.json")
    assert subprocess.run(run, cwd=ROOT, capture_output=True, check=False).returncode == 1
