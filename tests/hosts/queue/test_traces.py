"""One connected trace: the caller, the front door, SNS and SQS, a worker and its stages, S3.

The front door and the worker are processes of their own, which export to the same stand-in for a
collector, as the caller does. API Gateway, Lambda and SNS export on AWS only.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from hosts.queue.local import stand_in
from hosts.queue.local.system import KEY, RUNTIMES
from tests.hosts.queue import tasks
from tests.hosts.queue.collector import Collected, collecting, graph
from tests.hosts.queue.serving import serving
from tests.hosts.queue.test_system import PATIENCE_S
from tests.long import long

PARENT = "53995c3f42cd8ad8"
XRAY = f"Root=1-5759e988-bd862e3fe1be46a994272793;Parent={PARENT};Sampled=1"
FRONT, WORKER = "stable_diffusion_front", "stable_diffusion_worker"
ALWAYS, *OTHERS = stand_in.KINDS


@dataclass
class System:
    """The front door's address, the collector's, and the spans that it has."""

    url: str
    collector: str
    spans: list[Collected]

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The answer of the front door."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"x-api-key": KEY, "content-type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def done(self, id: str) -> dict[str, Any]:
        """The task's end."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            told: dict[str, Any] = self.call("GET", f"/v1alpha2/tasks/{id}?prefix=output")
            if told["status"] != "queued":
                return told
            time.sleep(0.1)
        raise AssertionError(f"{id} does not end")

    def of(self, trace: str, *last: str) -> list[Collected]:
        """The spans of one trace, once the last ones have come."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            found = [one for one in list(self.spans) if one.span.trace_id.hex() == trace]
            if {one.span.name for one in found} >= set(last):
                return found
            time.sleep(0.1)
        raise AssertionError(f"of the trace {trace} no spans {last} came")


@pytest.fixture(scope="module", params=[ALWAYS, *(pytest.param(one, marks=long) for one in OTHERS)])
def system(
    request: pytest.FixtureRequest,
    tiny_model: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[System]:
    """The queue on this machine, told of a collector as an operator would."""
    given = [f"SD_MODEL={tiny_model('sd1')}", "SD_THREADS=1", "WORKER_POLL_S=1"]
    options = [part for one in given for part in ("--set", one)]
    log = tmp_path_factory.mktemp("traces") / "log"
    with collecting() as (collector, spans):
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        with serving(log, "--aws", request.param, *options, environment=told) as (url, _):
            yield System(url, collector, spans)


def task(id: str) -> dict[str, Any]:
    body = tasks.newer(id)
    body["task"]["metadata"]["runtime"] = next(iter(RUNTIMES))
    return body


def test_one_trace_of_five_services(system: System) -> None:
    exporter = OTLPSpanExporter(f"{system.collector}/v1/traces")
    shop = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    shop.add_span_processor(SimpleSpanProcessor(exporter))
    with shop.get_tracer("shop").start_as_current_span("order", kind=trace.SpanKind.CLIENT) as span:
        headers: dict[str, str] = {}
        propagate.inject(headers)
        system.call("POST", "/v1alpha2", task("t-w3c"), **headers)
    done = system.done("t-w3c")
    assert done["status"] == "completed", done
    found = system.of(f"{span.get_span_context().trace_id:032x}", "order", "task")
    assert graph(found) == {
        ("", "shop"),
        ("shop", FRONT),
        (FRONT, "S3"),
        (FRONT, "SNS"),
        ("SNS", WORKER),
        (WORKER, "S3"),
    }
    (task_span,) = [one for one in found if one.span.name == "task"]
    # without both X-Ray takes the worker for a part of what called it
    assert task_span.attributes.items() >= {
        ("aws.span.kind", "LOCAL_ROOT"),
        ("aws.local.service", WORKER),
    }
    named = {one.span.name: one.span for one in found}
    worker = task_span.span
    for stage in ("queue", "encode", "denoise", "decode"):
        assert named[stage].parent_span_id == worker.span_id, stage
    aws = account(done)
    link = f"00-{worker.trace_id.hex()}-{worker.span_id.hex()}-"
    assert traceparent_of_image(aws, done["image_url"][0]).startswith(link)
    assert traceparent_of_message(aws, "t-w3c").startswith(link)


def test_a_trace_as_api_gateway_hands_it_on(system: System) -> None:
    system.call("POST", "/v1alpha2", task("t-xray"), **{"X-Amzn-Trace-Id": XRAY})
    assert system.done("t-xray")["status"] == "completed"
    found = system.of("5759e988bd862e3fe1be46a994272793", "POST /v1alpha2", "task")
    outside = {one.span.name for one in found if one.span.parent_span_id.hex() == PARENT}
    assert outside == {"POST /v1alpha2"}, "API Gateway's span is the parent of the front door's"
    # only API Gateway itself could have exported that parent
    assert graph(found) == {
        ("?", FRONT),
        (FRONT, "S3"),
        (FRONT, "SNS"),
        ("SNS", WORKER),
        (WORKER, "S3"),
    }


def account(done: dict[str, Any]) -> Callable[[str], Any]:
    """Clients of the stand-in that a presigned address leads to."""
    found = urlsplit(done["images"][0])
    session = boto3.Session("local", "local", region_name=stand_in.REGION)
    return lambda name: session.client(name, endpoint_url=f"{found.scheme}://{found.netloc}")


def traceparent_of_image(aws: Callable[[str], Any], link: str) -> str:
    bucket, _, key = link.removeprefix("s3://").partition("/")
    return str(aws("s3").head_object(Bucket=bucket, Key=key)["Metadata"]["traceparent"])


def traceparent_of_message(aws: Callable[[str], Any], id: str) -> str:
    sqs = aws("sqs")
    queue = sqs.get_queue_url(QueueName="demo-completions")["QueueUrl"]
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        got = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1, MessageAttributeNames=["All"])
        for message in got.get("Messages", []):
            if json.loads(message["Body"]).get("id") == id:
                return str(message["MessageAttributes"]["traceparent"]["StringValue"])
    raise AssertionError(f"nothing announced {id}")
