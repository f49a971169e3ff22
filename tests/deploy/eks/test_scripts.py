"""install.sh and cleanup.sh: their order, run twice, dry, and on wrong input.

There is no cluster here: aws, kubectl, helm and terraform are programs that write down how they are
called. bentoctl is the real one.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
EKS = ROOT / "deploy" / "eks"
RECORDER = """#!/bin/sh
[ -t 0 ] || cat >/dev/null
echo "$(basename "$0") $*" >>"$CALLS"
case "$FAIL_ON" in ?*) case "$(basename "$0") $*" in $FAIL_ON*) exit 1;; esac;; esac
"""


@dataclass
class Desk:
    """A folder with a configuration, and programs that write their calls to `calls`."""

    folder: Path
    configuration: Path
    env: dict[str, str]

    def run(self, script: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(EKS / script), *options, "--folder", str(self.folder), str(self.configuration)],
            cwd=self.folder.parent,
            env={**self.env, **env},
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """What was called since last asked."""
        path = Path(self.env["CALLS"])
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def desk(tmp_path: Path, tools: Path) -> Desk:
    programs, folder = tmp_path / "bin", tmp_path / "files"
    programs.mkdir()
    folder.mkdir()
    for name in ("aws", "kubectl", "helm", "terraform"):
        (programs / name).write_text(RECORDER)
        (programs / name).chmod(0o755)
    document = yaml.safe_load((EKS / "gpu-production.yaml").read_text())
    document["spec"]["image_uri"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd:1"
    configuration = tmp_path / "mine.yaml"
    configuration.write_text(yaml.safe_dump(document))
    env = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "FAIL_ON": "",
        "BENTOCTL_HOME": str(tmp_path / "home"),
    }
    return Desk(folder, configuration, env)


def order(calls: list[str], *expected: str) -> None:
    """Calls that begin so are there, in this order."""
    places = []
    for start in expected:
        found = [i for i, call in enumerate(calls) if call.startswith(start)]
        assert found, f"no call {start!r} in {calls}"
        places.append(found[0])
    assert places == sorted(places), calls


def test_install_in_order_and_again(desk: Desk) -> None:
    done = desk.run("install.sh", "--yes")
    assert done.returncode == 0, done.stderr
    first = desk.calls()
    order(
        first,
        "aws sts get-caller-identity",
        "terraform init",
        "terraform apply",
        "aws eks update-kubeconfig",
        "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api",
        "helm upgrade --install karpenter-crd",
        "helm upgrade --install karpenter ",
        "helm upgrade --install aws-load-balancer-controller",
        "helm upgrade --install keda",
        "aws ssm get-parameter --name /stable-diffusion/api-keys",
        "kubectl apply --server-side -k",
        "kubectl rollout status",
        "kubectl wait gateway/stable-diffusion",
    )
    steps = re.findall(r"^\[(\d)/8 ", done.stdout, re.M)
    assert steps == list("12345678")
    assert "https://" in done.stdout and "curl -X POST" in done.stdout
    assert (desk.folder / "bentoctl.tfvars").exists()
    again = desk.run("install.sh", "--yes")
    assert again.returncode == 0, again.stderr
    assert sorted(desk.calls()) == sorted(first)


def test_a_queue_has_no_balancer(desk: Desk) -> None:
    desk.configuration.write_text((EKS / "queue.yaml").read_text())
    done = desk.run("install.sh", "--dry-run")
    assert done.returncode == 0, done.stderr
    steps = re.findall(r"^\[(\d)/8 ", done.stdout, re.M)
    assert steps == list("12345678")
    assert "hosts.queue.front.package" in done.stdout and "gateway/stable" not in done.stdout


def test_install_stops_where_terraform_fails(desk: Desk) -> None:
    done = desk.run("install.sh", "--yes", FAIL_ON="terraform apply")
    assert done.returncode != 0
    assert not [call for call in desk.calls() if call.startswith(("kubectl", "helm"))]


def test_install_asks_before_it_costs(desk: Desk) -> None:
    assert desk.run("install.sh").returncode != 0
    assert not [call for call in desk.calls() if call.startswith("terraform")]


def test_cleanup_in_order(desk: Desk) -> None:
    done = desk.run("cleanup.sh", "--yes", "--keep-images")
    assert done.returncode == 0, done.stderr
    order(
        desk.calls(),
        "kubectl delete httproutes",
        "kubectl delete gateways",
        "kubectl delete scaledobjects",
        "kubectl delete deployments",
        "kubectl delete nodepools",
        "kubectl delete nodeclaims",
        "kubectl delete ec2nodeclasses",
        "helm uninstall karpenter ",
        "helm uninstall keda",
        "aws ec2 describe-instances",
        "terraform destroy",
    )


def test_cleanup_without_a_cluster_goes_on(desk: Desk) -> None:
    done = desk.run("cleanup.sh", "--yes", "--keep-images", FAIL_ON="aws eks update-kubeconfig")
    assert done.returncode == 0, done.stderr
    calls = desk.calls()
    assert not [call for call in calls if call.startswith(("kubectl", "helm"))]
    order(calls, "terraform destroy")


def test_cleanup_stops_where_the_balancer_stays(desk: Desk) -> None:
    done = desk.run("cleanup.sh", "--yes", "--keep-images", FAIL_ON="kubectl delete gateways")
    assert done.returncode != 0
    assert not [call for call in desk.calls() if call.startswith(("terraform", "helm"))]


def test_cleanup_without_controllers(desk: Desk) -> None:
    done = desk.run("cleanup.sh", "--yes", "--keep-images", FAIL_ON="kubectl get customresource")
    assert done.returncode == 0, done.stderr
    assert not [call for call in desk.calls() if "nodepools" in call and "delete" in call]


def test_cleanup_removes_snapshots_of_the_image(desk: Desk) -> None:
    programs = Path(desk.env["PATH"].split(":")[0])
    answer = 'case "$2" in describe-snapshots) echo snap-1 snap-2;; esac\n'
    (programs / "aws").write_text(RECORDER + answer)
    desk.run("cleanup.sh", "--yes", "--keep-images")
    assert not [call for call in desk.calls() if "-snapshot" in call]
    desk.run("cleanup.sh", "--yes")
    found = [call for call in desk.calls() if "-snapshot" in call]
    assert "Name=tag:deployment,Values=sd-production" in found[0]
    assert found[1:] == [f"aws ec2 delete-snapshot --snapshot-id snap-{n}" for n in (1, 2)]


@pytest.mark.parametrize("script", ["install.sh", "cleanup.sh"])
def test_dry_run_calls_nothing(desk: Desk, script: str) -> None:
    done = desk.run(script, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert desk.calls() == []
    assert not list(desk.folder.iterdir())
    assert "nothing was changed" in done.stdout


@pytest.mark.parametrize("script", ["install.sh", "cleanup.sh"])
def test_help_and_wrong_input(desk: Desk, script: str) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(EKS / script), *arguments]
        return subprocess.run(command, env=desk.env, text=True, capture_output=True, check=False)

    shown = call("--help")
    assert shown.returncode == 0 and "--dry-run" in shown.stdout
    assert "--fast" in call("--fast").stderr
    assert "deploy/eks/gpu.yaml" in call("missing.yaml").stderr
    assert call().returncode == 2
    document = yaml.safe_load(desk.configuration.read_text())
    document["spec"]["region"] = "us-eats-1"
    desk.configuration.write_text(yaml.safe_dump(document))
    refused = call(str(desk.configuration))
    assert refused.returncode == 1 and "did you mean us-east-1?" in refused.stderr
    assert desk.calls() == []
