"""After `bentoctl apply`: what the group of instances is doing, until the new version serves."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from sd_bentoctl.waiting import Unready, until

LOG_LINES = 10
#: How a replacement of instances ends otherwise than well.
_NOT_REPLACED = {"Failed", "Cancelled", "RollbackSuccessful", "RollbackFailed"}


def wait(outputs: dict[str, Any], spec: dict[str, Any]) -> None:
    """Part of our contract with operators: returns once the instances of this version serve.

    An instance serves when it answers `/readyz` with 200. The load balancer's own health check
    tells that, so it works where nobody may reach the service. A group that is there already
    replaces its instances, and the old ones serve meanwhile; that takes up to twice
    `boot_grace_s` for each.

    Raises:
        Unready: no instance serves within `boot_grace_s` (the reason is Auto Scaling's, like a
            quota, or the end of the boot log), or the old instances were not replaced.
    """
    named = {name: output["value"] for name, output in outputs.items()}
    if "target_group" not in named:
        print("these Terraform files are older than this: generate them again to have apply wait")
        return
    import boto3  # where it is used: generating needs no AWS SDK

    clients = {
        name: boto3.client(name, region_name=spec["region"])
        for name in ("autoscaling", "elbv2", "logs", "ec2")
    }
    until(lambda: look(clients, named), spec["boot_grace_s"])
    until(
        lambda: refreshed(clients["autoscaling"], named["autoscaling_group"]),
        2 * spec["boot_grace_s"] * spec["max_instances"],
    )
    print(f"{named['endpoint']} serves")


def look(clients: dict[str, Any], named: dict[str, str]) -> tuple[bool, str]:
    """Return whether an instance serves, and what the group is doing in one line."""
    healthy = _health(clients["elbv2"], named["target_group"])
    if healthy["healthy"]:
        return True, f"instances that serve: {healthy['healthy']}"
    reason = _failure(clients["autoscaling"], named["autoscaling_group"])
    instances = _instances(clients["autoscaling"], named["autoscaling_group"])
    states = Counter(one["LifecycleState"] for one in instances)
    word = f"instances: {_listed(states)}; behind the balancer: {_listed(healthy)}"
    if reason:
        return False, f"{word}; Auto Scaling: {reason}"
    if not instances:
        return False, word
    if log := _log(clients["logs"], named["log_group"]):
        return False, f"{word}; the log ends with: {log}"
    boot = _console(clients["ec2"], instances[-1]["InstanceId"])
    return False, f"{word}; the boot ends with: {boot}" if boot else word


def refreshed(autoscaling: Any, group: str) -> tuple[bool, str]:
    """Return whether no old instance is to be replaced any more, and a line on how far it is.

    Raises:
        Unready: the latest replacement failed, was cancelled, or went back to the old version.
    """
    told = autoscaling.describe_instance_refreshes(AutoScalingGroupName=group, MaxRecords=1)
    if not told["InstanceRefreshes"]:
        return True, "instances replaced: none to replace"
    latest = told["InstanceRefreshes"][0]  # the newest comes first
    status = latest["Status"]
    if status in _NOT_REPLACED:
        raise Unready(
            f"instances of the old version were not replaced, {status}: "
            f"{latest.get('StatusReason', 'no reason is given')}"
        )
    done = status == "Successful"
    return done, f"instances replaced: {latest.get('PercentageComplete', 0)} %, {status}"


def _health(elbv2: Any, group: str) -> Counter[str]:
    told = elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    return Counter(one["TargetHealth"]["State"] for one in told)


def _instances(autoscaling: Any, group: str) -> list[dict[str, Any]]:
    (found,) = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])[
        "AutoScalingGroups"
    ]
    instances: list[dict[str, Any]] = found["Instances"]
    return instances


def _failure(autoscaling: Any, group: str) -> str:
    """Why the latest start that has ended failed; nothing where it did not."""
    told = autoscaling.describe_scaling_activities(AutoScalingGroupName=group, MaxRecords=10)
    for one in told["Activities"]:  # the newest comes first; the next try may be under way
        if one["StatusCode"] in ("Failed", "Cancelled"):
            return str(one.get("StatusMessage") or one["Description"])
        if one["StatusCode"] == "Successful":
            break
    return ""


def _log(logs: Any, group: str) -> str:
    """The last line that an instance wrote."""
    streams = logs.describe_log_streams(
        logGroupName=group, orderBy="LastEventTime", descending=True, limit=1
    )["logStreams"]
    if not streams:
        return ""
    events = logs.get_log_events(
        logGroupName=group, logStreamName=streams[0]["logStreamName"], limit=LOG_LINES
    )["events"]
    return str(events[-1]["message"]).strip() if events else ""


def _console(ec2: Any, instance: str) -> str:
    """The last line of the boot script's own output, for an instance that cannot write a log."""
    from botocore.exceptions import ClientError

    try:
        told = ec2.get_console_output(InstanceId=instance, Latest=True).get("Output", "")
    except ClientError:  # there is none yet, or whoever applies may not read it
        return ""
    lines = re.findall(r"cloud-init\[\d+\]: (.*\S)", told)
    return lines[-1] if lines else ""


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
