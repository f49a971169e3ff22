"""The topology that `deploy/queue/terraform` makes, made with boto3 for stand-ins and tests.

The filter policies are the same by test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RECEIVES = 60  # worker's deliveries (50) and some more, in which to say that it was given up
TIERS = ("priority", "standard")
Policy = dict[str, Any]


@dataclass(frozen=True)
class Topology:
    """Addresses of what there is.

    Attributes:
        queues: runtime -> queue URLs, the priority queue first.
        watch: a queue that gets every completion message.
    """

    tasks_topic: str
    results_topic: str
    bucket: str
    queues: Mapping[str, list[str]]
    dead_letters: str
    watch: str
    runtimes: Mapping[str, str]
    dynamic: str = "dynamic"


def policy(runtimes: Mapping[str, str], runtime: str, dynamic: str, tier: str) -> Policy:
    """Return the filter policy of one queue.

    Standard ones are the reference system's; tasks of paying users carry the same attributes under
    a `priority_` name.
    """
    models: list[Any] = [runtimes[runtime]] if runtime in runtimes else []
    if runtime == dynamic:
        models = [{"anything-but": sorted(set(runtimes.values()))}]
    prefix = "priority_" if tier == "priority" else ""
    return {"$or": [{f"{prefix}sd_model_checkpoint": models}, {f"{prefix}runtime": [runtime]}]}


def create(
    session: Any, name: str, runtimes: Mapping[str, str], *, dynamic: str = "dynamic"
) -> Topology:
    """Make everything in the account (or stand-in) that a boto3 session talks to."""
    sns, sqs, s3 = (session.client(service) for service in ("sns", "sqs", "s3"))
    s3.create_bucket(Bucket=name)
    tasks = sns.create_topic(Name=f"{name}-tasks")["TopicArn"]
    results = sns.create_topic(Name=f"{name}-results")["TopicArn"]
    dead, dead_arn = _queue(sqs, f"{name}-dead-letters", {"MessageRetentionPeriod": "1209600"})
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": str(RECEIVES)})
    queues: dict[str, list[str]] = {}
    for runtime in (*runtimes, dynamic):
        for tier in TIERS:
            suffix = "-priority" if tier == "priority" else ""
            url, arn = _queue(
                sqs,
                f"{name}-{runtime}{suffix}",
                {"RedrivePolicy": redrive, "VisibilityTimeout": "60"},
            )
            _subscribe(sns, tasks, arn, policy(runtimes, runtime, dynamic, tier))
            queues.setdefault(runtime, []).append(url)
    watch, watch_arn = _queue(sqs, f"{name}-completions", {})
    _subscribe(sns, results, watch_arn, None)
    return Topology(tasks, results, name, queues, dead, watch, runtimes, dynamic)


def _queue(sqs: Any, name: str, attributes: dict[str, str]) -> tuple[str, str]:
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, found["Attributes"]["QueueArn"]


def _subscribe(sns: Any, topic: str, queue: str, filter: Policy | None) -> None:
    attributes = {"RawMessageDelivery": "true"}
    if filter is not None:
        attributes["FilterPolicy"] = json.dumps(filter)
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes=attributes)
