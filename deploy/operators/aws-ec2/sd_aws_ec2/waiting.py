"""After `bentoctl apply`: what the group of instances is doing, until one of them serves."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sd_bentoctl.waiting import until

LOG_LINES = 10


def wait(outputs: dict[str, Any], spec: dict[str, Any]) -> None:
    """Part of our contract with operators: returns once an instance answers `/readyz` with 200.

    The load balancer's own health check tells that, so it works where nobody may reach the service.

    Raises:
        Unready: not within `boot_grace_s`. The reason is Auto Scaling's (quota, capacity), or the
            end of the boot log.
    """
    named = {name: output["value"] for name, output in outputs.items()}
    if "target_group" not in named:
        print("these Terraform files are older than this: generate them again to have apply wait")
        return
    import boto3  # where it is used: generating needs no AWS SDK

    clients = {
        name: boto3.client(name, region_name=spec["region"])
        for name in ("autoscaling", "elbv2", "logs")
    }
    until(lambda: look(clients, named), spec["boot_grace_s"])
    print(f"{named['endpoint']} serves")


def look(clients: dict[str, Any], named: dict[str, str]) -> tuple[bool, str]:
    """Return whether an instance serves, and what the group is doing in one line."""
    healthy = _health(clients["elbv2"], named["target_group"])
    if healthy["healthy"]:
        return True, f"instances that serve: {healthy['healthy']}"
    reason = _failure(clients["autoscaling"], named["autoscaling_group"])
    states = _states(clients["autoscaling"], named["autoscaling_group"])
    word = f"instances: {_listed(states)}; behind the balancer: {_listed(healthy)}"
    if reason:
        return False, f"{word}; Auto Scaling: {reason}"
    log = _log(clients["logs"], named["log_group"]) if states else ""
    return False, f"{word}; the log ends with: {log}" if log else word


def _health(elbv2: Any, group: str) -> Counter[str]:
    told = elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    return Counter(one["TargetHealth"]["State"] for one in told)


def _states(autoscaling: Any, group: str) -> Counter[str]:
    (found,) = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])[
        "AutoScalingGroups"
    ]
    return Counter(one["LifecycleState"] for one in found["Instances"])


def _failure(autoscaling: Any, group: str) -> str:
    """Why the latest start of an instance failed; nothing where it did not."""
    latest = autoscaling.describe_scaling_activities(AutoScalingGroupName=group, MaxRecords=1)
    for one in latest["Activities"]:
        if one["StatusCode"] in ("Failed", "Cancelled"):
            return str(one.get("StatusMessage") or one["Description"])
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


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
