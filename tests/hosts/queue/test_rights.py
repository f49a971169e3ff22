"""The module's policies allow each call of the front's and the worker's code, and nothing else.

The calls are read from the code: every method of what is called s3, sqs, sns or cloudwatch. That
their resources are right, too, is shown by test_policies.py, with authorization on.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
POLICIES = ROOT / "deploy" / "queue" / "terraform" / "identities.tf"
CLIENTS = {"s3", "sqs", "sns", "cloudwatch"}
#: Operations whose right has another name (AWS' service authorization reference).
RIGHTS = {
    ("s3", "list_objects_v2"): "s3:ListBucket",
    ("s3", "head_object"): "s3:GetObject",
    ("s3", "generate_presigned_url"): "s3:GetObject",  # of get_object, the only one presigned
    ("sqs", "change_message_visibility_batch"): "sqs:ChangeMessageVisibility",
    ("sqs", "delete_message_batch"): "sqs:DeleteMessage",
}
#: What no line of the code calls: Lambda's own log and trace; and S3 answers 404, not 403, for what
#: is not there only to whoever may list.
AROUND = {
    "front": {
        *("logs:CreateLogStream", "logs:PutLogEvents", "s3:ListBucket"),
        *("xray:PutTraceSegments", "xray:PutTelemetryRecords"),
    },
    "worker": {"s3:ListBucket"},
}


def calls(role: str) -> Iterator[tuple[str, str]]:
    """Every (client, method) that a role's code calls, and that of both roles."""
    queue = ROOT / "hosts" / "queue"
    for path in [*sorted((queue / role).rglob("*.py")), queue / "bucket.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name.lstrip("_") in CLIENTS:
                yield name.lstrip("_"), node.attr


def right(client: str, method: str) -> str:
    """The IAM action of a call."""
    words = "".join(part.capitalize() for part in method.split("_"))
    return RIGHTS.get((client, method), f"{client}:{words}")


def allowed(role: str) -> set[str]:
    """The actions of a role's policy."""
    text = POLICIES.read_text()
    found = re.search(rf'"aws_iam_policy_document" "{role}" {{\n(.*?)\n}}\n', text, re.DOTALL)
    assert found, role
    return set(re.findall(r'"([a-z0-9]+:[A-Z]\w+)"', found[1]))


@pytest.mark.parametrize("role", ["front", "worker"])
def test_every_call_and_nothing_else_is_allowed(role: str) -> None:
    called = {right(*call) for call in calls(role)}
    assert called >= {"s3:PutObject", "s3:GetObject", "sns:Publish"}, "the code was not read"
    assert allowed(role) == called | AROUND[role]


def test_keda_counts() -> None:
    # its scaler aws-sqs-queue makes this one call
    assert allowed("keda") == {"sqs:GetQueueAttributes"}
