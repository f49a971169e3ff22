"""One connected trace: the caller's span, the worker's, its stages, S3's objects, SNS' messages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hosts.queue.front.publish import Front
from hosts.queue.local import stand_in, workers
from hosts.queue.local.topology import Topology
from tests.hosts.queue import tasks
from tests.hosts.queue.collector import collecting
from tests.hosts.queue.test_system import PATIENCE_S, post, wait_for

W3C = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
System = tuple[Topology, Front, list[Any]]


@pytest.fixture(scope="module")
def system(
    make_system: Callable[[], tuple[Topology, Front]],
    endpoint: str,
    tiny_model: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[System]:
    """A front and a worker that exports its spans."""
    topology, front = make_system()
    log, port = tmp_path_factory.mktemp("traces") / "log", stand_in.free_port()
    with collecting() as (collector, spans):
        settings = {
            "WORKER_PORT": str(port),
            "WORKER_POLL_S": "1",
            "SD_MODEL": str(tiny_model("sd1")),
            "SD_THREADS": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        given = {**stand_in.environment(endpoint), **workers.settings(topology, "sd15"), **settings}
        process = workers.start(log, given)
        workers.wait_ready(process, port, log)
        yield topology, front, spans
        process.terminate()
        process.wait(300)


@pytest.mark.parametrize(
    ("id", "headers", "trace", "parent"),
    [
        ("t-w3c", {"traceparent": W3C}, W3C.split("-")[1], W3C.split("-")[2]),
        (
            "t-xray",  # as API Gateway sends it
            {"X-Amzn-Trace-Id": XRAY},
            "5759e988bd862e3fe1be46a994272793",
            "53995c3f42cd8ad8",
        ),
    ],
)
def test_a_task_is_one_trace(
    system: System, aws: Any, id: str, headers: dict[str, str], trace: str, parent: str
) -> None:
    topology, front, spans = system
    assert post(front, "/v1alpha2", tasks.newer(id), **headers)[0] == 200
    done = wait_for(front, id)
    assert done["status"] == "completed", done
    named = collected(spans, trace, "task")
    task = named["task"]
    assert task.parent_span_id.hex() == parent, "the span continues the caller's"
    assert {"queue", "encode", "denoise", "decode"} <= set(named)
    for name, one in named.items():
        assert name == "task" or one.parent_span_id == task.span_id, name
    stored = traceparent_of_image(aws, done["image_url"][0])
    announced = traceparent_of_message(aws, topology, id)
    assert stored == announced == f"00-{trace}-{task.span_id.hex()}-01"


def test_five_services_are_one_trace(
    system: System, aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """API Gateway, Lambda and SNS are played by X-Ray's rule; front, botocore and worker are real.

    The rule: a service's segment has the parent that the header names, and the header that it hands
    on names its own segment. In Lambda botocore hands on what the runtime put into the environment.
    """
    topology, front, spans = system
    segments = {"API Gateway": "a" * 16, "Lambda": "b" * 16, "SNS": "c" * 16}
    chain: list[tuple[str, str, str]] = []

    def through(service: str, header: str) -> str:
        parts = dict(part.split("=") for part in header.split(";"))
        chain.append((service, parts["Root"].replace("-", "")[1:], parts["Parent"]))
        return f"Root={parts['Root']};Parent={segments[service]};Sampled=1"

    class Sns:
        """Publishes to a topic of nobody, and hands the message to the queue as SNS would."""

        def publish(self, **given: Any) -> None:
            headers: list[str] = []
            client = aws.client("sns")
            client.meta.events.register(
                "before-send.sns.Publish",
                lambda request, **_: headers.append(request.headers["X-Amzn-Trace-Id"].decode()),
            )
            nobodys = client.create_topic(Name="nobodys")["TopicArn"]
            client.publish(**{**given, "TopicArn": nobodys})
            system_attribute = {
                "DataType": "String",
                "StringValue": through("SNS", headers[0]),
            }
            aws.client("sqs").send_message(
                QueueUrl=topology.queues["sd15"][1],
                MessageBody=given["Message"],
                MessageAttributes=given["MessageAttributes"],
                MessageSystemAttributes={"AWSTraceHeader": system_attribute},
            )

    event_header = through("API Gateway", XRAY.replace("5759e988", "6a2f0c11"))
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "front")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", through("Lambda", event_header))
    in_lambda = Front(front.settings, Sns(), front.s3)
    body, headers = tasks.newer("t-five"), {"X-Amzn-Trace-Id": event_header}
    assert post(in_lambda, "/v1alpha2", body, **headers)[0] == 200
    done = wait_for(front, "t-five")
    trace = "6a2f0c11bd862e3fe1be46a994272793"
    task = collected(spans, trace, "task")["task"]
    chain.append(("worker", task.trace_id.hex(), task.parent_span_id.hex()))
    for service, text in (
        ("S3", traceparent_of_image(aws, done["image_url"][0])),
        ("completion", traceparent_of_message(aws, topology, "t-five")),
    ):
        chain.append((service, *text.split("-")[1:3]))
    assert chain == [
        ("API Gateway", trace, "53995c3f42cd8ad8"),
        ("Lambda", trace, segments["API Gateway"]),
        ("SNS", trace, segments["Lambda"]),
        ("worker", trace, segments["SNS"]),
        ("S3", trace, task.span_id.hex()),
        ("completion", trace, task.span_id.hex()),
    ]


def collected(spans: list[Any], trace: str, last: str) -> dict[str, Any]:
    """The spans of one trace by name, once the last of them has come."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        named = {one.name: one for one in list(spans) if one.trace_id.hex() == trace}
        if last in named:
            return named
        time.sleep(0.1)
    raise AssertionError(f"no span {last} of the trace {trace} came")


def traceparent_of_image(aws: Any, link: str) -> str:
    bucket, _, key = link.removeprefix("s3://").partition("/")
    return str(aws.client("s3").head_object(Bucket=bucket, Key=key)["Metadata"]["traceparent"])


def traceparent_of_message(aws: Any, topology: Topology, id: str) -> str:
    sqs = aws.client("sqs")
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        got = sqs.receive_message(
            QueueUrl=topology.watch, WaitTimeSeconds=1, MessageAttributeNames=["All"]
        )
        for message in got.get("Messages", []):
            if json.loads(message["Body"]).get("id") == id:
                return str(message["MessageAttributes"]["traceparent"]["StringValue"])
    raise AssertionError(f"nothing announced {id}")
