"""`bentoctl init` in a terminal: every question of both operators takes its answer."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from sd_aws_ec2.spec import Ec2Spec
from sd_aws_eks.spec import EksSpec
from sd_bentoctl.schema import cerberus_schema
from tests.deploy.conftest import Run

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
#: the last thing on the screen: a question for a value, or for yes or no
QUESTION = re.compile(r"(?:^|\n)\s*([\w ()./-]+?)(?: \[[^\n]*\])?: $")
YES_OR_NO = re.compile(r"Do you want to add (another )?item to (\w+) \(y/n\)$")
PATIENCE_S = 300

EC2: dict[str, Any] = {
    "region": "us-east-1",
    "instance_type": "g5.xlarge",
    "precision": "bf16",
    "model": "s3://bucket/folder",
    "model_gib": 7,
    "volume_gib": 200,
    "image_uri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/drawing:v1",
    "ami_id": "ami-0123456789abcdef0",
    "min_instances": 2,
    "max_instances": 4,
    "requests_per_replica": 8,
    "spot": True,
    "on_demand_base": 1,
    "other_instance_types": ["g6.xlarge"],
    "boot_grace_s": 600,
    "drain_s": 60,
    "vpc_id": "vpc-01234567",
    "balancer_subnet_ids": ["subnet-01234567", "subnet-89abcdef"],
    "instance_subnet_ids": ["subnet-00000000"],
    "vpc_cidr": "10.1.0.0/16",
    "internal": True,
    "allowed_cidrs": ["203.0.113.0/24"],
    "allow_plain_http": True,
    "api_keys_parameter": "/stable-diffusion/api-keys",
    "certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/0123abcd",
    "kms_key_arn": "arn:aws:kms:us-east-1:123456789012:key/0123abcd",
    "log_retention_days": 90,
    "deletion_protection": True,
    "enable_gpus": True,
}
#: The two of EKS have every field between them: a balancer in a VPC of its own, and a queue in a
#: cluster that is there.
RAY: dict[str, Any] = {
    "region": "us-east-1",
    "instance_types": ["g5.xlarge", "g6.xlarge"],
    "host": "ray",
    "capacity": "on-demand",
    "kubernetes_version": "1.35",
    "precision": "bf16",
    "model": "s3://my-models/stable-diffusion-xl-base-1.0",
    "image_uri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/drawing:v1",
    "page_image_uri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/page:v1",
    "min_replicas": 2,
    "max_replicas": 8,
    "requests_per_replica": 6,
    "drain_s": 45,
    "volume_gib": 120,
    "bottlerocket_version": "1.50.0",
    "system_instance_type": "m6i.xlarge",
    "vpc_cidr": "10.9.0.0/16",
    "nat_per_zone": True,
    "api_allowed_cidrs": ["203.0.113.0/24", "198.51.100.7/32"],
    "admin_role_arns": ["arn:aws:iam::123456789012:role/admin"],
    "internal": True,
    "allowed_cidrs": ["203.0.113.0/24"],
    "certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/0123abcd",
    "dashboard_users": {
        "user_pool_arn": "arn:aws:cognito-idp:us-east-1:123456789012:userpool/us-east-1_abc",
        "client_id": "1example23456789",
        "domain": "my-users",
    },
    "web_acl_arn": "arn:aws:wafv2:us-east-1:123456789012:regional/webacl/mine/0123abcd",
    "tracing": True,
    "capacity_reservation_ids": ["cr-0123456789abcdef0"],
    "state_bucket": "my-terraform-state",
    "tags": {"team": "images", "cost center": "42"},
    "alarm_email": "you@example.com",
    "monthly_budget_usd": 500,
    "allow_plain_http": True,
    "api_keys_parameter": "/stable-diffusion/api-keys",
    "kms_key_arn": "arn:aws:kms:us-east-1:123456789012:key/0123abcd",
    "model_kms_key_arn": "arn:aws:kms:us-east-1:123456789012:key/4567cdef",
    "log_retention_days": 90,
}
QUEUE: dict[str, Any] = {
    "region": "us-west-2",
    "instance_types": ["g5.xlarge"],
    "services": [
        {"name": "sd15", "instance_types": ["g4dn.xlarge"], "queue_length": 16},
        {"name": "dynamic", "model": "s3://my-models/others", "models_memory_gb": 12.5},
    ],
    "capacity": "spot",
    "precision": "fp32",
    "async_": True,
    "runtime": "sdxl",
    "checkpoint": "sd_xl_base_1.0.safetensors",
    "clients": {"shop": "priority", "blog": "standard"},
    "queue_length": 20,
    "priority_queue_length": 4,
    "polling_s": 10,
    "cooldown_s": 300,
    "models_memory_gb": 6.5,
    "input_buckets": ["my-photographs"],
    "results_days": 14,
    "rate_limit": 100,
    "burst_limit": 200,
    "access_log": True,
    "api_gateway_account": True,
    "cloudfront": True,
    "cloudfront_hostname": "tasks.example.com",
    "cloudfront_certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/1",
    "models_bucket": "my-models",
    "max_wait_s": 600,
    "min_replicas": 0,
    "pods_per_gpu": 2,
    "image_snapshot_id": "snap-0123456789abcdef0",
    "cluster": "platform",
    "existing_controllers": ["karpenter", "aws-load-balancer-controller"],
    "node_role": "KarpenterNodeRole-platform",
    "vpc_id": "vpc-0123456789abcdef0",
    "private_subnet_ids": ["subnet-0123456789abcdef2", "subnet-0123456789abcdef3"],
    "public_subnet_ids": ["subnet-0123456789abcdef4", "subnet-0123456789abcdef5"],
    "container_insights": False,
}


class Terminal:
    """`bentoctl init` behind a terminal, and the questions it asked."""

    def __init__(self, program: Path, folder: Path, environment: dict[str, str]) -> None:
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self._main, child = pty.openpty()
        self._process = subprocess.Popen(
            [str(program), "init", "--do-not-generate"],
            cwd=folder,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200", **environment},
            stdin=child,
            stdout=child,
            stderr=child,
            close_fds=True,
        )
        os.close(child)

    def answer(self, answers: dict[str, Any]) -> int:
        """Answer every question until the program ends; what is not in `answers` gets Return.

        A value that differs from the one before is typed for each question of a list.
        """
        left = {name: list(value) for name, value in answers.items() if _is_many(value)}
        pairs: list[str] = []
        current = ""
        while (screen := self._until_it_asks()) is not None:
            if listed := re.search(
                r"(\w+):\s*Enter your input$", screen
            ):  # a list that is required
                current = listed[1]
                self.asked.append(current)
            if found := YES_OR_NO.search(screen):
                current = found[2]
                self.asked += [] if found[1] or current in self.asked else [current]
                self._type("y" if left.get(current) else "n")
            elif screen.endswith("Enter your input"):
                self._type(str(left[current].pop(0)))
            elif screen.endswith("key"):
                key = left[current].pop(0)
                pairs = [str(answers[current][key])]
                self._type(key)
            elif screen.endswith("value"):
                self._type(pairs.pop())
            else:
                self._one(screen.rpartition("\n")[2].strip(), answers)
        return self._process.wait(PATIENCE_S)

    def _one(self, name: str, answers: dict[str, Any]) -> None:
        if name in self.asked:
            self.wrong.append(name)
            self._process.kill()
            return
        self.asked.append(name)
        value = answers.get(name, "")
        self._type(("yes" if value else "no") if isinstance(value, bool) else str(value))

    def _type(self, text: str) -> None:
        os.write(self._main, f"{text}\n".encode())

    def _until_it_asks(self) -> str | None:
        """The question that is on the screen now; None once the program has ended."""
        screen, end = "", time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            ready, _, _ = select.select([self._main], [], [], 0.05)
            if ready:
                try:
                    screen += CONTROL.sub("", os.read(self._main, 65536).decode())
                except OSError:  # the other end is closed
                    return None
            elif found := QUESTION.search(screen):
                return screen[: found.end(1)]
            elif self._process.poll() is not None:
                return None
        raise TimeoutError(screen[-2000:])


def _is_many(value: Any) -> bool:
    return isinstance(value, list | dict)


def test_several_services_are_typed_one_in_a_line() -> None:
    read = cerberus_schema(EksSpec)["services"]["schema"]["coerce"]
    assert read("{name: anime, precision: fp32}") == {"name": "anime", "precision": "fp32"}
    for wrong, word in (("{name: anime, precison: fp32}", "Extra inputs"), ("{", "not YAML")):
        with pytest.raises(ValueError, match=word):
            read(wrong)


def test_every_field_has_an_answer() -> None:
    assert set(Ec2Spec.model_fields) == set(EC2)
    assert set(EksSpec.model_fields) == set(RAY) | set(QUEUE)
    for spec in (RAY, QUEUE):
        EksSpec(**spec)  # they fit together


@pytest.mark.parametrize(
    ("operator", "spec"), [("aws-ec2", EC2), ("aws-eks", RAY), ("aws-eks", QUEUE)]
)
def test_every_question_takes_its_answer(
    tools: Path, run: Run, tmp_path: Path, operator: str, spec: dict[str, Any]
) -> None:
    installed = run("bentoctl", "operator", "install", operator)
    assert installed.returncode == 0, installed.stderr
    home = {"BENTOCTL_HOME": str(tmp_path / "home"), "BENTOML_HOME": str(tmp_path / "bentoml")}
    terminal = Terminal(tools / "bentoctl", tmp_path, {**home, "NO_COLOR": "1"})
    status = terminal.answer({"name": "drawing", "env": {"SD_THREADS": "4"}, **spec})
    assert not terminal.wrong, "a right answer was asked for again"
    assert status == 0
    model = Ec2Spec if operator == "aws-ec2" else EksSpec
    assert set(model.model_fields) <= set(terminal.asked)
    written = yaml.safe_load((tmp_path / "deployment_config.yaml").read_text())
    assert written["spec"] == spec
    assert written["env"] == {"SD_THREADS": "4"}
    assert written["operator"] == {"name": operator}
