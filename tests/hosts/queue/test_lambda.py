"""The front door as Lambda runs it, in a process of its own: its spans go to the X-Ray daemon."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys

from hosts.queue.front.xray import HEADER, SAMPLED
from hosts.queue.local.workers import ROOT
from tests.hosts.queue import tasks
from tests.hosts.queue.collector import graph, read

TRACE, FUNCTION = "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
XRAY = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={FUNCTION};Sampled="
#: prints the attributes of the message that a task becomes
SCRIPT = """
import json, os, sys, boto3
from moto import mock_aws
with mock_aws():
    boto3.client("s3").create_bucket(Bucket="results")
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic = os.environ["FRONT_TOPIC_ARN"] = sns.create_topic(Name="tasks")["TopicArn"]
    queue = sqs.create_queue(QueueName="sd15")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    raw = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"], Attributes=raw)
    from hosts.queue.front import handler
    event = {"httpMethod": "POST", "path": "/v1alpha2", "body": sys.argv[1], "headers": {}}
    assert handler.handler(event, None)["statusCode"] == 200
    [got] = sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"])["Messages"]
    print(json.dumps({k: v["StringValue"] for k, v in got["MessageAttributes"].items()}))
"""


def invoked(sampled: int, **environment: str) -> tuple[dict[str, str], bytes]:
    """(the message's attributes, what came to the daemon) of one task."""
    daemon = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    daemon.bind(("127.0.0.1", 0))
    with daemon:
        lambdas = {
            "AWS_LAMBDA_FUNCTION_NAME": "sd-front",
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
            "_X_AMZN_TRACE_ID": f"{XRAY}{sampled}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "FRONT_BUCKET": "results",
            "FRONT_RUNTIMES": json.dumps({"sd15": tasks.MODEL}),
        }
        command = [sys.executable, "-c", SCRIPT, json.dumps(tasks.newer("a"))]
        told = subprocess.check_output(command, cwd=ROOT, env={**lambdas, **environment}, text=True)
        daemon.setblocking(False)
        try:
            came = daemon.recv(65_536)
        except BlockingIOError:
            came = b""
    return json.loads(told), came


def test_its_spans_are_below_those_of_lambda() -> None:
    attributes, came = invoked(1, FRONT_TRACING="true", OTEL_SERVICE_NAME="sd-front")
    assert came.startswith(HEADER + SAMPLED)
    spans = read(base64.b64decode(came.removeprefix(HEADER + SAMPLED)))
    assert {one.span.trace_id.hex() for one in spans} == {TRACE}
    assert graph(spans) == {("?", "sd-front"), ("sd-front", "S3"), ("sd-front", "SNS")}
    named = {one.span.name: one.span for one in spans}
    assert named["POST /v1alpha2"].parent_span_id.hex() == FUNCTION
    publish = named["SNS/Publish"].span_id.hex()
    assert attributes == {"runtime": "sd15", "traceparent": f"00-{TRACE}-{publish}-01"}


def test_what_lambda_does_not_sample_is_passed_on_and_not_exported() -> None:
    attributes, came = invoked(0, FRONT_TRACING="true")
    assert attributes == {"runtime": "sd15", "x-amzn-trace-id": f"{XRAY}0"} and came == b""


def test_without_tracing_nothing_is_exported() -> None:
    attributes, came = invoked(1)
    assert attributes == {"runtime": "sd15", "x-amzn-trace-id": f"{XRAY}1"} and came == b""
