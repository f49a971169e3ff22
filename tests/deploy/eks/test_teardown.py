"""cleanup.sh leaves nothing, wherever install.sh was killed, and whatever no longer answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.deploy.eks.world import FRESH
from tests.long import LONG

ROOT = Path(__file__).resolve().parents[3]
EKS = ROOT / "deploy" / "eks"
WORLD = Path(__file__).with_name("world.py")


@dataclass
class Account:
    """A folder with a configuration, and the stand-in's state."""

    folder: Path
    configuration: Path
    env: dict[str, str]

    def run(self, script: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [EKS / script, "--yes", *options, "--folder", self.folder, self.configuration]
        return subprocess.run(
            [str(word) for word in command],
            env={**self.env, **env},
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            start_new_session=True,  # it is killed with its children, and not we
        )

    @property
    def state(self) -> dict[str, object]:
        path = Path(self.env["WORLD"])
        found: dict[str, object] = json.loads(path.read_text()) if path.exists() else FRESH
        return found

    def change(self, **parts: object) -> None:
        Path(self.env["WORLD"]).write_text(json.dumps({**self.state, **parts}))


@pytest.fixture
def account(tmp_path: Path, tools: Path) -> Account:
    programs, folder = tmp_path / "bin", tmp_path / "files"
    programs.mkdir()
    folder.mkdir()
    for name in ("aws", "kubectl", "helm", "terraform"):
        text = f'#!/bin/sh\nexec {sys.executable} {WORLD} "$0" "$@"\n'
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (programs / "sleep").symlink_to("/bin/true")
    document = yaml.safe_load((EKS / "gpu.yaml").read_text())
    document["spec"]["image_uri"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd:1"
    configuration = tmp_path / "mine.yaml"
    configuration.write_text(yaml.safe_dump(document))
    env = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "WORLD": str(tmp_path / "world.json"),
        "BENTOCTL_HOME": str(tmp_path / "home"),
    }
    return Account(folder, configuration, env)


def nothing_left(account: Account) -> None:
    done = account.run("cleanup.sh", "--keep-images")
    assert done.returncode == 0, done.stderr + done.stdout
    assert account.state["things"] == {} and account.state["cluster"] is False


def test_killed_at_every_step(account: Account) -> None:
    whole = account.run("install.sh")
    assert whole.returncode == 0, whole.stderr
    calls = int(str(account.state["calls"]))
    assert calls > 15 and account.state["things"], "the stand-in does not see what is made"
    nothing_left(account)
    for step in range(1, calls + 1, 1 if LONG else 5):  # each takes seconds
        account.change(**FRESH)
        killed = account.run("install.sh", KILL_AT=str(step))
        assert killed.returncode == -9, f"step {step}: {killed.stdout}"
        nothing_left(account)


@pytest.mark.parametrize("gone", [["aws-load-balancer-controller"], ["karpenter"]])
def test_a_controller_that_is_gone_stops_it(account: Account, gone: list[str]) -> None:
    """While the cluster answers, what its controllers hold is theirs to delete."""
    account.run("install.sh")
    charts = account.state["charts"]
    assert isinstance(charts, list)
    account.change(charts=[one for one in charts if one not in gone])
    assert account.run("cleanup.sh", "--keep-images").returncode != 0


def test_a_cluster_that_lives_out_of_reach_starts_no_more_nodes(account: Account) -> None:
    account.run("install.sh")
    account.change(hidden=True)
    nothing_left(account)


def test_a_cluster_that_is_gone_is_swept_by_tags(account: Account) -> None:
    account.run("install.sh")
    account.change(cluster=False, nodes=False)
    done = account.run("cleanup.sh", "--keep-images")
    assert done.returncode == 0, done.stderr + done.stdout
    assert account.state["things"] == {}
    for word in ("load balancer arn:lb", "target group arn:tg", "group sg-1", "profile-1", "lt-1"):
        assert word in done.stdout
