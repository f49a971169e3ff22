"""snapshot.sh: its order, what it leaves behind when something fails, dry, and on wrong input.

AWS is a program that writes down how it is called and answers as AWS would; where the real AWS CLI
is installed, it checks every kind of call against AWS's own models, offline.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from tests.deploy.eks.test_scripts import EKS, order

SNAPSHOT = "snap-0123456789abcdef0"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd:1"
AWS = """#!/bin/sh
echo "aws $*" >>"$CALLS"
case "$FAIL_ON" in ?*) case "$*" in $FAIL_ON*) exit 1;; esac;; esac
printf '%s\\0' "$@" end-of-call >>"$CALLS.argv"
case "$1 $2" in
  "sts get-caller-identity") echo 123456789012 ;;
  "ssm get-parameter") echo ami-0123456789abcdef0 ;;
  "ec2 describe-subnets") echo "${SUBNET-subnet-0123456789abcdef0}" ;;
  "ec2 describe-security-groups") echo sg-0123456789abcdef0 ;;
  "ec2 run-instances") echo i-0123456789abcdef0 ;;
  "ssm describe-instance-information") echo Online ;;
  "ssm send-command") echo 11111111-2222-3333-4444-555555555555 ;;
  "ssm get-command-invocation")
    case "$*" in *StandardError*) echo "no such image" ;; *) echo "${STATE:-Success}" ;; esac ;;
  "ec2 describe-instances") echo vol-0123456789abcdef0 ;;
  "ec2 create-snapshot") echo snap-0123456789abcdef0 ;;
esac
"""
Take = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def env(tmp_path: Path, tools: Path) -> dict[str, str]:
    """Programs that write their calls to $CALLS; nobody sleeps."""
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {"aws": AWS, "sleep": '#!/bin/sh\necho "sleep $*" >>"$CALLS"\n'}
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "FAIL_ON": "",
    }


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    document = yaml.safe_load((EKS / "queue.yaml").read_text())
    versions = {"kubernetes_version": "1.35", "bottlerocket_version": "1.51.0"}
    document["spec"] |= {"image_uri": IMAGE, **versions}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def take(tmp_path: Path, env: dict[str, str], configuration: Path) -> Take:
    """take(*options, **environment) runs the script on the configuration."""

    def run(*options: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(EKS / "snapshot.sh"), *options, str(configuration)],
            cwd=tmp_path,
            env={**env, **more},
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=300,
        )

    return run


def calls(env: dict[str, str]) -> list[str]:
    path = Path(env["CALLS"])
    return path.read_text().splitlines() if path.exists() else []


def removed(made: list[str]) -> None:
    """Instance and profile are gone, in the order AWS asks for."""
    order(
        made,
        "aws ec2 terminate-instances --instance-ids i-0123456789abcdef0",
        "aws ec2 wait instance-terminated",
        "aws iam remove-role-from-instance-profile",
        "aws iam delete-instance-profile",
    )


def test_in_order_and_nothing_left(take: Take, env: dict[str, str], configuration: Path) -> None:
    done = take("--yes")
    assert done.returncode == 0, done.stderr
    made = calls(env)
    order(
        made,
        "aws sts get-caller-identity",
        "aws ec2 describe-subnets",
        "aws ssm get-parameter --query Parameter.Value --name /aws/service/bottlerocket/"
        "aws-k8s-1.35/x86_64/1.51.0/image_id",
        "aws iam create-instance-profile",
        "aws iam add-role-to-instance-profile",
        "aws ec2 run-instances",
        "aws ec2 wait instance-running",
        "aws ssm describe-instance-information",
        "aws ssm send-command",
        "aws ec2 stop-instances",
        "aws ec2 wait instance-stopped",
        "aws ec2 create-snapshot --volume-id vol-0123456789abcdef0",
        "aws ec2 wait snapshot-completed",
        "aws ec2 terminate-instances",
    )
    removed(made)
    assert re.findall(r"^\[(\d)/6 ", done.stdout, re.M) == list("123456")
    assert f"image_snapshot_id: {SNAPSHOT}" in done.stdout
    (pull,) = [call for call in made if "pull-image" in call]
    assert f"--source {IMAGE}" in pull and "password" not in pull
    assert not [call for call in made if "delete-snapshot" in call]
    # and the line is one that the configuration takes
    document = yaml.safe_load(configuration.read_text())
    document["spec"] |= yaml.safe_load(f"image_snapshot_id: {SNAPSHOT}")
    from sd_aws_eks.spec import EksSpec

    assert EksSpec.model_validate(document["spec"]).image_snapshot_id == SNAPSHOT


@pytest.mark.skipif(shutil.which("aws") is None, reason="the AWS CLI is not installed")
def test_the_aws_cli_takes_every_kind_of_call(take: Take, env: dict[str, str]) -> None:
    aws = str(shutil.which("aws"))  # the real one: `env` changes no PATH of ours
    images = ("--image", IMAGE, "--image", "public.ecr.aws/eks/pause@sha256:ab")
    done = take("--yes", *images)
    assert done.returncode == 0, done.stderr
    assert len([call for call in calls(env) if "pull-image" in call]) == 2
    told = Path(env["CALLS"] + ".argv").read_text().split("end-of-call\0")
    every = [call.split("\0")[:-1] for call in told if call]
    kinds = {tuple(call[:2]): call for call in every}
    assert len(kinds) >= 16
    nowhere = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_MAX_ATTEMPTS": "1",
    }

    def said(call: list[str]) -> str:
        """A call that its models refuse does not come so far as to be sent."""
        done = subprocess.run(
            [aws, *call], env={**os.environ, **nowhere}, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(said, kinds.values()))
    assert [one for one in answers if "Could not connect to the endpoint" not in one] == []


def test_a_failed_pull_leaves_nothing_and_says_why(take: Take, env: dict[str, str]) -> None:
    done = take("--yes", STATE="Failed")
    assert done.returncode == 1
    assert "no such image" in done.stderr and "on the instance: Failed" in done.stderr
    made = calls(env)
    removed(made)
    assert not [call for call in made if "create-snapshot" in call]


@pytest.mark.parametrize(
    ("step", "left"),
    [
        ("ec2 run-instances", ["profile"]),
        ("ssm describe-instance-information", ["instance", "profile"]),
        ("ssm get-command-invocation", ["instance", "profile"]),
        ("ec2 stop-instances", ["instance", "profile"]),
        ("ec2 wait snapshot-completed", ["instance", "profile", "snapshot"]),
    ],
)
def test_a_failure_leaves_nothing(
    take: Take, env: dict[str, str], step: str, left: list[str]
) -> None:
    done = take("--yes", FAIL_ON=step)
    assert done.returncode != 0 and "image_snapshot_id" not in done.stdout
    ways = {
        "instance": "aws ec2 terminate-instances",
        "profile": "aws iam delete-instance-profile",
        "snapshot": "aws ec2 delete-snapshot",
    }
    made = calls(env)
    cleaned = [one for one, way in ways.items() if any(call.startswith(way) for call in made)]
    assert cleaned == left


def test_what_cannot_be_removed_is_told(take: Take, env: dict[str, str]) -> None:
    done = take("--yes", FAIL_ON="ec2 terminate-instances")
    assert done.returncode == 0, done.stderr
    assert "FAILED, please do it by hand: aws ec2 terminate-instances" in done.stdout
    assert [call for call in calls(env) if call.startswith("aws iam delete-instance-profile")]


def test_interrupted(env: dict[str, str], configuration: Path, tmp_path: Path) -> None:
    script = [str(EKS / "snapshot.sh"), "--yes", str(configuration)]
    shutil.copy(shutil.which("sleep", path="/bin:/usr/bin") or "", tmp_path / "bin" / "sleep")
    with subprocess.Popen(
        script, cwd=tmp_path, env={**env, "STATE": "InProgress"}, stdout=subprocess.DEVNULL
    ) as process:
        end = time.monotonic() + 300
        while not any("get-command-invocation" in call for call in calls(env)):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 130
    removed(calls(env))


def test_asks_before_it_costs(take: Take, env: dict[str, str]) -> None:
    assert take().returncode != 0
    assert not [call for call in calls(env) if "run-instances" in call or "iam" in call]


def test_without_a_cluster(take: Take) -> None:
    assert "no cluster sd-queue in us-east-1" in take("--yes", SUBNET="None").stderr
    own = ("--subnet", "subnet-1", "--security-group", "sg-1", "--role", "mine")
    done = take("--yes", *own, SUBNET="None")
    assert done.returncode == 0, done.stderr


def test_dry_run_calls_nothing(take: Take, env: dict[str, str]) -> None:
    done = take("--dry-run")
    assert done.returncode == 0, done.stderr
    assert calls(env) == []
    for shown in ("run-instances", "pull-image", "create-snapshot", "terminate-instances"):
        assert shown in done.stdout
    assert "nothing was changed" in done.stdout


def test_help_and_wrong_input(take: Take, env: dict[str, str], tmp_path: Path) -> None:
    shown = take("--help")
    assert shown.returncode == 0 and "--dry-run" in shown.stdout
    assert "--fast is not an option" in take("--fast").stderr
    assert "is not an image's name" in take("--yes", "--image", 'sd:1"; reboot').stderr
    alone = subprocess.run(
        [str(EKS / "snapshot.sh")], env=env, cwd=tmp_path, capture_output=True, check=False
    )
    assert alone.returncode == 2
    assert not [call for call in calls(env) if "run-instances" in call]
