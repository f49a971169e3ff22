"""`bentoctl apply` waits until an instance serves. AWS's own model checks the answers used here."""

from __future__ import annotations

import base64
import json
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from sd_aws_ec2 import waiting
from sd_bentoctl.waiting import Unready, until
from tests.deploy.conftest import ROOT

NAMED = {"target_group": "arn:of:the:group", "autoscaling_group": "group", "log_group": "log"}
QUOTA = "You have requested more vCPU capacity than your current vCPU limit of 0 allows."


CONSOLE = """\
[   30.1] cloud-init[1203]: Err:1 http://archive.ubuntu.com/ubuntu noble InRelease
[   30.2] cloud-init[1203]: Temporary failure resolving 'archive.ubuntu.com'
[   31.0] systemd[1]: Finished something.

ip-10-0-0-1 login: """


def clients(
    health: list[str],
    states: list[str],
    failed: str = "",
    activities: tuple[str, ...] = (),
    streams: tuple[str, ...] = ("i-0",),
    console: bool = True,
) -> dict[str, Any]:
    """AWS with instances in these states, and an activity that failed for a reason.

    Args:
        activities: the group's, the newest first; default: one.
        streams: of the log group.
        console: whether it may be read.
    """
    made = {
        name: boto3.client(name, "us-east-1", aws_access_key_id="a", aws_secret_access_key="a")
        for name in ("elbv2", "autoscaling", "logs", "ec2")
    }
    targets = [{"TargetHealth": {"State": state}} for state in health]
    instances = [
        {
            "InstanceId": f"i-{number}",
            "AvailabilityZone": "us-east-1a",
            "LifecycleState": state,
            "HealthStatus": "Healthy",
            "ProtectedFromScaleIn": False,
        }
        for number, state in enumerate(states)
    ]
    group = {
        "AutoScalingGroupName": "group",
        "MinSize": 1,
        "MaxSize": 1,
        "DesiredCapacity": 1,
        "DefaultCooldown": 1,
        "AvailabilityZones": ["us-east-1a"],
        "HealthCheckType": "ELB",
        "CreatedTime": 0,
        "Instances": instances,
    }
    found = [
        {
            "ActivityId": "1",
            "AutoScalingGroupName": "group",
            "Cause": "a start",
            "StartTime": 0,
            "StatusCode": status,
            "StatusMessage": failed or "-",
        }
        for status in activities or ("Failed" if failed else "Successful",)
    ]
    output = base64.b64encode(CONSOLE.encode()).decode()  # as EC2 sends it
    answers: list[tuple[str, str, dict[str, Any]]] = [
        ("elbv2", "describe_target_health", {"TargetHealthDescriptions": targets}),
        ("autoscaling", "describe_scaling_activities", {"Activities": found}),
        ("autoscaling", "describe_auto_scaling_groups", {"AutoScalingGroups": [group]}),
        (
            "logs",
            "describe_log_streams",
            {"logStreams": [{"logStreamName": name} for name in streams]},
        ),
        ("logs", "get_log_events", {"events": [{"message": "pulling the image\n"}]}),
        *(
            [("ec2", "get_console_output", {"InstanceId": "i-0", "Output": output})]
            if console
            else []
        ),
    ]
    stubs = {name: Stubber(client) for name, client in made.items()}
    for name, call, answer in answers:
        stubs[name].add_response(call, answer)
    if not console:
        stubs["ec2"].add_client_error("get_console_output", "UnauthorizedOperation")
    for stub in stubs.values():
        stub.activate()
    return made


def test_an_instance_that_serves_ends_it() -> None:
    assert waiting.look(clients(["healthy"], ["InService"]), NAMED)[0]


@pytest.mark.parametrize(
    ("health", "states", "failed", "words"),
    [
        ([], [], QUOTA, ("instances: none", QUOTA)),
        (["initial"], ["Pending"], "", ("1 Pending", "1 initial", "ends with: pulling the image")),
        (["unhealthy"], ["InService"], "", ("1 InService", "1 unhealthy")),
    ],
)
def test_what_the_group_is_doing_is_said(
    health: list[str], states: list[str], failed: str, words: tuple[str, ...]
) -> None:
    done, word = waiting.look(clients(health, states, failed), NAMED)
    assert not done
    assert all(one in word for one in words), word


def test_a_start_under_way_hides_no_failure_before_it() -> None:
    _, word = waiting.look(clients([], [], QUOTA, ("InProgress", "Failed", "Successful")), NAMED)
    assert QUOTA in word
    _, word = waiting.look(clients([], [], QUOTA, ("InProgress", "Successful", "Failed")), NAMED)
    assert QUOTA not in word, "it has been made good since"


def test_an_instance_that_wrote_nothing_has_a_console() -> None:
    """Without a way to AWS, or before its programs are there, nothing is in the log group."""
    aws = clients(["initial"], ["Pending"], streams=())
    _, word = waiting.look(aws, NAMED)
    assert word.endswith("the boot ends with: Temporary failure resolving 'archive.ubuntu.com'")


def test_without_a_right_to_the_console_it_goes_on() -> None:
    aws = clients(["initial"], ["Pending"], streams=(), console=False)
    assert waiting.look(aws, NAMED) == (
        False,
        "instances: 1 Pending; behind the balancer: 1 initial",
    )


def refreshes(*statuses: str) -> Any:
    """Auto Scaling with refreshes of a group, the newest first."""
    made = boto3.client(
        "autoscaling", "us-east-1", aws_access_key_id="a", aws_secret_access_key="a"
    )
    found = [
        {
            "InstanceRefreshId": str(number),
            "Status": status,
            "StatusReason": "unhealthy instances",
            "PercentageComplete": 50,
        }
        for number, status in enumerate(statuses)
    ]
    stub = Stubber(made)
    stub.add_response("describe_instance_refreshes", {"InstanceRefreshes": found})
    stub.activate()
    return made


def test_a_new_version_serves_once_the_old_instances_are_replaced() -> None:
    done, word = waiting.refreshed(refreshes("InProgress", "Successful"), "group")
    assert not done and "InProgress" in word and "50 %" in word
    assert waiting.refreshed(refreshes("Successful", "RollbackSuccessful"), "group")[0]
    assert waiting.refreshed(refreshes(), "group")[0], "the first version replaces nothing"


@pytest.mark.parametrize("status", ["RollbackSuccessful", "RollbackFailed", "Failed", "Cancelled"])
def test_a_new_version_that_did_not_come_up_is_told(status: str) -> None:
    with pytest.raises(Unready, match=f"{status}: unhealthy instances"):
        waiting.refreshed(refreshes(status, "Successful"), "group")


def test_it_ends_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([(False, "booting"), (False, "booting"), (False, QUOTA)])
    with pytest.raises(Unready, match="vCPU limit"):
        until(lambda: next(looks, (False, QUOTA)), 0.05, pause=0.02)
    assert capsys.readouterr().out.splitlines().count("booting") == 1, "only news is printed"
    monkeypatch.setenv("BENTOCTL_WAIT_S", "0")
    until(lambda: (False, "never"), 100)


def test_terraform_has_the_outputs_that_it_reads() -> None:
    text = (ROOT / "deploy/operators/aws-ec2/sd_aws_ec2/terraform/outputs.tf").read_text()
    for name in (*NAMED, "endpoint"):
        assert f"output {json.dumps(name)}" in text
