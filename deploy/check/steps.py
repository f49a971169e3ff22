"""The steps of the check of a configuration, from `bentoctl generate` until nothing is left."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import re
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from deploy.check import provider
from deploy.check.inventory import inventory
from deploy.check.ready import Ready
from deploy.check.stand_in import Overrides, StandIn
from deploy.check.terraform import Failed, configuration, run

BENTOCTL = str(Path(sys.executable).with_name("bentoctl"))
#: In order; each needs those before it.
STEPS = ("generate", "validate", "test", "plan", "apply")
#: What Go's HTTP client says, once in hundreds of runs, when the stand-in closes a connection. AWS
#: keeps them open. The provider's waiters do not repeat such a call; Terraform goes on from there.
#: https://github.com/aws/aws-sdk-go-v2/issues/2737
CONNECTION_LOST = "use of closed network connection"

#: Operator -> tests passed, as they depend on its Terraform files alone.
_tested: dict[str, int] = {}
#: Digests of sets of Terraform files that are valid: `terraform validate` reads no variables.
_valid: set[str] = set()
#: Operators that bentoctl has installed in its home.
_installed: set[str] = set()
_HOME = tempfile.TemporaryDirectory(prefix="bentoctl-home-")
_once = threading.Lock()


@dataclass
class Report:
    """The findings about one configuration."""

    label: str
    tests: int = 0
    planned: int = 0
    created: int = 0
    destroyed: int = 0
    left: dict[str, int] = field(default_factory=dict)
    #: the boot script, where the plan has a launch template with one
    user_data: str = ""
    kinds: dict[str, int] = field(default_factory=dict)


class Deployment:
    """One configuration in a folder of its own, with a stand-in for AWS from step `plan` on."""

    def __init__(self, one: Ready, folder: Path, aws: StandIn | None) -> None:
        self.one, self.folder, self.aws = one, folder, aws
        self.report = Report(one.label)
        self._open = contextlib.ExitStack()
        self.overrides = Overrides(one)
        self.env = {
            **configuration(folder),
            **(aws.env if aws else {}),
            "BENTOCTL_HOME": _HOME.name,
            "BENTOCTL_WAIT_S": "0",  # the stand-in starts no machine
            "TF_IN_AUTOMATION": "1",
            "NO_COLOR": "1",
        }

    def check(self, until: str, tests: bool = True) -> Report:
        """Every step up to and with `until`; `test` only if tests are wanted.

        Raises:
            Failed: the first step that went wrong.
        """
        with self._open:
            for step in STEPS[: STEPS.index(until) + 1]:
                if tests or step != "test":
                    getattr(self, step)()
        return self.report

    def run(self, *command: str) -> str:
        """A command's output; it runs once more where the stand-in's connection was lost."""
        try:
            return run(list(command), self.folder, self.env)
        except Failed as failed:
            if CONNECTION_LOST not in str(failed):
                raise
            return run(list(command), self.folder, self.env)

    def generate(self) -> None:
        """Install the operator and generate, as a user would."""
        document = copy.deepcopy(self.one.document)
        if self.aws:
            document = self.overrides.prepare(document, self.aws.client)
        # stands for what bentoctl build would have pushed
        host = f"123456789012.dkr.ecr.{document['spec']['region']}.amazonaws.com"
        document["spec"].setdefault("image_uri", f"{host}/{document['name']}:check")
        (self.folder / "deployment_config.yaml").write_text(yaml.safe_dump(document))
        with _once:
            if self.one.operator.name not in _installed:
                self.run(BENTOCTL, "operator", "install", str(self.one.operator))
                _installed.add(self.one.operator.name)
        self.run(BENTOCTL, "generate", "-f", "deployment_config.yaml")

    def validate(self) -> None:
        """Formatting, and Terraform's own check."""
        self.run("terraform", "fmt", "-check", "-recursive", "-diff", ".")
        digest = self._digest()
        with _once:
            if digest not in _valid:
                self._init()
                self.run("terraform", "validate")
                _valid.add(digest)

    def test(self) -> None:
        """The module's own tests, on a mock of the provider; once an operator, not once a file."""
        name = self.one.operator.name
        with _once:
            if name not in _tested:
                self._init()
                said = self.run("terraform", "test")
                passed = re.search(r"(\d+) passed, 0 failed", said)
                if not passed or passed[1] == "0":
                    raise Failed(f"terraform test ran nothing:\n{said}")
                _tested[name] = int(passed[1])
            self.report.tests = _tested[name]

    def plan(self) -> None:
        """A plan against the stand-in."""
        self._init()
        self.overrides.lay(self.folder)
        self.run("terraform", "plan", "-input=false", "-out=plan", "-var-file=bentoctl.tfvars")
        changes = json.loads(self.run("terraform", "show", "-json", "plan"))["resource_changes"]
        made = [one for one in changes if one["mode"] == "managed"]
        self.report.planned = len(made)
        self.report.kinds = dict(sorted(Counter(one["type"] for one in made).items()))
        scripts = [one["change"]["after"].get("user_data") for one in made]
        self.report.user_data = next((script for script in scripts if script), "")

    def apply(self) -> None:
        """Really make and destroy everything, with bentoctl."""
        assert self.aws
        before = inventory(self.aws.client)
        self.run(BENTOCTL, "apply", "--auto-approve", "-f", "deployment_config.yaml")
        self.report.created = len(self._managed())
        if self.report.created != self.report.planned:
            raise Failed(f"planned {self.report.planned}, created {self.report.created}")
        self.run(BENTOCTL, "destroy", "--auto-approve", "-f", "deployment_config.yaml")
        self.report.destroyed = self.report.created - len(self._managed())
        self.report.left = dict(inventory(self.aws.client) - before)
        if self.report.destroyed != self.report.created or self.report.left:
            counts = f"{self.report.created} created, {self.report.destroyed} destroyed"
            raise Failed(f"not everything was destroyed: {counts}, left {self.report.left}")

    def _init(self) -> None:
        if not (self.folder / ".terraform").exists():
            self.run("terraform", "init", "-input=false")
            self.env = self._open.enter_context(provider.attached(self.folder, self.env))

    def _digest(self) -> str:
        """Two configurations have the same one if all that `terraform validate` reads is equal."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if path.is_file() and ".tf" in path.name and path.suffix != ".tfvars":
                digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
        return digest.hexdigest()

    def _managed(self) -> list[str]:
        listed = self.run("terraform", "state", "list").splitlines()
        return [line for line in listed if not re.search(r"(^|\.)data\.", line)]
