"""Every alarm has its section in docs/runbooks.md, and no section is of an alarm that is gone."""

from __future__ import annotations

import re

import yaml

from tests.deploy.conftest import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks.md"
EKS = ROOT / "deploy/operators/aws-eks/sd_aws_eks/terraform/monitoring.tf"
QUEUE = ROOT / "deploy/queue/terraform/alarms.tf"


def alarms() -> set[str]:
    """Names of Prometheus' alerts, and the ends of the names of CloudWatch's alarms."""
    rules = yaml.safe_load((ROOT / "deploy/observability/alerts.yml").read_text())
    found = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    keys = re.findall(r"^    ([\w-]+) = \{$", EKS.read_text(), re.M)
    names = re.findall(r'alarm_name +=.*?-([a-z-]+)"$', QUEUE.read_text(), re.M)
    assert keys and names
    return {*found, *keys, *names, "budget"}


def test_each_alarm_has_a_section() -> None:
    before = RUNBOOKS.read_text().partition("# Without an alarm")[0]
    assert set(re.findall(r"^## (.+)$", before, re.M)) == alarms()
