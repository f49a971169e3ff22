"""The Terraform module: its tests on mocks; with LONG=1 an apply on moto."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from deploy.check import provider
from hosts.queue.front import package
from hosts.queue.local import stand_in, topology
from sd_aws_eks import files
from tests.long import long

RUNTIMES = {"sd15": "v1-5.safetensors"}
pytestmark = pytest.mark.skipif(
    not shutil.which("terraform"), reason="terraform is not installed: the module cannot be run"
)


def test_module(module: tuple[Path, Callable[..., str]]) -> None:
    folder, run = module
    run("fmt", "-check", "-recursive")
    with provider.attached(folder, {}) as attached:
        (running,) = json.loads(attached["TF_REATTACH_PROVIDERS"]).values()
        # relative paths, as of Lambda's package, are those of the configuration
        assert Path(f"/proc/{running['Pid']}/cwd").resolve() == folder.resolve()
        run("validate", **attached)
        assert "0 failed" in run("test", "-no-color", **attached)


def test_as_a_module_it_has_no_provider_of_its_own(tmp_path: Path) -> None:
    """Terraform could not destroy what a provider had made that went together with its module."""
    written = [Path(name) for name in files._queue(tmp_path)]
    module = [path for path in written if path.parent.name == "queue"]
    assert len(module) > 5
    assert not any('provider "aws"' in path.read_text() for path in module)


@long
def test_apply_makes_the_topology_that_workers_are_tested_on(
    module: tuple[Path, Callable[..., str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = module
    shutil.copytree(folder / "stand_in", folder, dirs_exist_ok=True)
    package.build(tmp_path / "front.zip")
    given = {
        "runtimes": RUNTIMES,
        "dynamic": True,
        "clients": {"shop": "priority", "blog": "standard"},
        "front_package": str(tmp_path / "front.zip"),
    }
    (folder / "terraform.tfvars.json").write_text(json.dumps(given))
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    with stand_in.serve("moto", tmp_path / "log") as endpoint:
        aws = stand_in.environment(endpoint)
        run("apply", "-auto-approve", "-input=false", "-no-color", **aws)
        told = json.loads(run("output", "-json", **aws))
        assert len(told["api_keys"]["value"]) == 2
        assert set(told["workers"]["value"]) == {"sd15", "dynamic"}
        check_filters(boto3.Session("local", "local", region_name="us-east-1"), endpoint)
        run("destroy", "-auto-approve", "-input=false", "-no-color", **aws)


def check_filters(session: Any, endpoint: str) -> None:
    sns = session.client("sns", endpoint_url=endpoint)
    found = {}
    for one in sns.list_subscriptions()["Subscriptions"]:
        arn = one["SubscriptionArn"]
        attributes = sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
        assert attributes["RawMessageDelivery"] == "true"
        queue = one["Endpoint"].rpartition(":")[2].removeprefix("stable-diffusion-")
        found[queue] = json.loads(attributes["FilterPolicy"])
    wanted = {
        f"{runtime}{'-priority' if tier == 'priority' else ''}": topology.policy(
            RUNTIMES, runtime, "dynamic", tier
        )
        for runtime in ("sd15", "dynamic")
        for tier in topology.TIERS
    }
    assert found == wanted
