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
