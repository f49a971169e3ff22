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

from sd_aws_eks.spec import EksSpec
from sd_bentoctl.schema import cerberus_schema
from tests.deploy.conftest import ROOT, Run

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
    "log_retention_days": 90,
    "deletion_protection": True,
    "enable_gpus": True,
}
EKS: dict[str, Any] = {
    "region": "us-east-1",
    "instance_types": ["g5.xlarge", "g6.xlarge"],
    "kubernetes_version": "1.35",
    "log_retention_days": 90,
    "nat_per_zone": True,
    "async_": True,
    "clients": {"shop": "priority"},
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
            ready, _, _ = select.select([self._main], [], [], 0.2)
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


@pytest.mark.parametrize(("operator", "spec"), [("aws-ec2", EC2), ("aws-eks", EKS)])
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
    schema = run("python", "-c", SCHEMA.format(operator.replace("-", "_"))).stdout.split()
    assert set(schema) <= set(terminal.asked)
    written = yaml.safe_load((tmp_path / "deployment_config.yaml").read_text())
    assert written["spec"] == spec
    assert written["env"] == {"SD_THREADS": "4"}
    assert written["operator"] == {"name": operator}


SCHEMA = f"""
import sys
sys.path[:0] = ["{ROOT}/deploy/operators/aws-ec2", "{ROOT}/deploy/operators/aws-eks"]
import sd_{{0}}.spec as module
from sd_bentoctl.spec import Spec
(model,) = [one for one in vars(module).values() if isinstance(one, type)
            and issubclass(one, Spec) and one is not Spec]
print(*model.model_fields)
"""
