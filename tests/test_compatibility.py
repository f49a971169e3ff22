"""The table of docs/index.md says with which versions this release works, as its files do."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def text(path: str) -> str:
    return (ROOT / path).read_text()


def pinned(name: str, path: str = "requirements/serve.txt") -> str:
    found = re.search(rf"^{re.escape(name)}(?:\[.*\])?==(\S+)$", text(path), re.MULTILINE)
    assert found, f"{path} does not pin {name}"
    return found[1]


def installed(name: str) -> str:
    found = re.search(rf"^readonly {name}_VERSION=(\S+)$", text("deploy/eks/versions.sh"), re.M)
    assert found, name
    return found[1]


def in_file(pattern: str, path: str) -> str:
    found = re.search(pattern, text(path))
    assert found, f"{path} has no {pattern}"
    return found[1]


def test_the_versions_are_those_of_the_files() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section("Works with"), re.MULTILINE)
    table = dict(rows[1:])  # the first is the head
    clusters = re.findall(
        r'^    "(1\.\d+)": datetime', text("deploy/operators/aws-eks/sd_aws_eks/versions.py"), re.M
    )
    neuron = "requirements/neuron.txt"
    terraform = "deploy/queue/terraform/versions.tf"
    assert table == {
        "Python": in_file(r'requires-python = "(.+)"', "pyproject.toml"),
        "PyTorch": pinned("torch"),
        "diffusers, transformers": f"{pinned('diffusers')}, {pinned('transformers')}",
        "BentoML, bentoctl": f"{pinned('bentoml')}, {in_file('bentoctl==([0-9.]+)', 'Makefile')}",
        "Ray": pinned("ray", "requirements/ray.txt"),
        "Neuron SDK": in_file(r"-sdk([0-9.]+)-", "bentofile.neuron.yaml"),
        "optimum-neuron, diffusers (Inferentia2)": (
            f"{pinned('optimum-neuron', neuron)}, {pinned('diffusers', neuron)}"
        ),
        "Kubernetes on EKS": ", ".join(clusters),
        "Karpenter": installed("KARPENTER"),
        "AWS Load Balancer Controller": installed("LOAD_BALANCER"),
        "Gateway API": installed("GATEWAY_API"),
        "KEDA": installed("KEDA"),
        "KubeRay": installed("KUBERAY"),
        "Neuron Helm chart": installed("NEURON_CHART"),
        "Terraform": in_file(r'required_version = "(.+)"', terraform),
        "AWS provider of Terraform": in_file(r'\n      version = "(.+)"', terraform),
    }


def section(title: str) -> str:
    """Return a section of docs/index.md."""
    return text("docs/index.md").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_all_modules_of_terraform_want_the_same() -> None:
    wanted = {
        (in_file(r'required_version = "(.+)"', path), in_file(r'\n      version = "(.+)"', path))
        for path in (
            "deploy/queue/terraform/versions.tf",
            "deploy/operators/aws-ec2/sd_aws_ec2/terraform/versions.tf",
            "deploy/operators/aws-eks/sd_aws_eks/terraform/versions.tf",
        )
    }
    assert len(wanted) == 1
