"""After `bentoctl apply`: what the group of instances is doing, until the new version serves."""

from __future__ import annotations

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
        for name in ("autoscaling", "elbv2", "logs")
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
    states = _states(clients["autoscaling"], named["autoscaling_group"])
    word = f"instances: {_listed(states)}; behind the balancer: {_listed(healthy)}"
    if reason:
        return False, f"{word}; Auto Scaling: {reason}"
    log = _log(clients["logs"], named["log_group"]) if states else ""
    return False, f"{word}; the log ends with: {log}" if log else word


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
