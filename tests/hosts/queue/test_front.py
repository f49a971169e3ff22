"""The front door on moto: what comes with a task, and two that come at the same time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from hosts.queue import bucket, keys
from hosts.queue.front import handler
from hosts.queue.front.publish import Front
from hosts.queue.front.settings import Settings
from hosts.queue.messages import MAX_BYTES, read
from tests.hosts.queue import tasks

BUCKET = "results"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    monkeypatch.setattr(bucket, "WAITS_S", (0.0, 0.0))
    with mock_aws():
        session = boto3.Session("local", "local", region_name="us-east-1")
        sns, s3 = session.client("sns"), session.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        topic = sns.create_topic(Name="tasks")["TopicArn"]
        yield Front(Settings(topic, BUCKET, {"sd15": tasks.MODEL}), sns, s3)


def post(front: Front, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    event = {"httpMethod": "POST", "path": "/v1alpha2", "body": json.dumps(body)}
    answer = handler.answer(front, {**event, "headers": headers})
    return answer["statusCode"], json.loads(answer["body"])


def test_an_empty_trace_header_is_left_out(front: Front) -> None:
    status, body = post(front, tasks.newer("a"), traceparent="", **{"X-Amzn-Trace-Id": ""})
    assert status == 200, body


def large(size: int) -> dict[str, Any]:
    return tasks.newer("b", "image-to-image", image_link="data:image/png;base64," + "x" * size)


def test_a_tasks_attributes_count_as_its_message_does(front: Front) -> None:
    """SNS counts names, types and values; moto does not count them, so the bytes are set here."""
    fitting = MAX_BYTES - len(read(large(0)).message())
    fitting -= sum(map(len, ("runtime", "String", "sd15", "traceparent", "String", TRACEPARENT)))
    for excess, expected in ((1, 413), (0, 200)):
        assert post(front, large(fitting + excess), traceparent=TRACEPARENT)[0] == expected
        there = front.s3.list_objects_v2(Bucket=BUCKET)["KeyCount"]
        assert there == (expected == 200), "what is refused claims no id"


class Undecided:
    """S3 while another writer of the same object is at work, for so many tries."""

    def __init__(self, s3: Any, tries: int) -> None:
        self._s3, self._tries = s3, tries

    def put_object(self, **given: Any) -> Any:
        self._tries -= 1
        if self._tries >= 0:
            code = {"Code": "ConditionalRequestConflict", "Message": "conflicting operation"}
            raise ClientError({"Error": code}, "PutObject")
        return self._s3.put_object(**given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)


@pytest.mark.parametrize("is_there", [False, True])
def test_two_equal_tasks_at_once_are_both_accepted(front: Front, is_there: bool) -> None:
    if is_there:
        front._claim(read(tasks.newer("c")))
    front.s3 = Undecided(front.s3, 2)
    status, body = post(front, tasks.newer("c"))
    assert status == 200, body
    assert front.s3.head_object(Bucket=BUCKET, Key=keys.claim("output", "c"))


def test_a_conflict_that_stays_is_no_success(front: Front) -> None:
    front.s3 = Undecided(front.s3, 99)
    assert post(front, tasks.newer("d"))[0] == 500
