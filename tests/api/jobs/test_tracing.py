"""Spans of requests and jobs, through their stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api.http import tracing
from tests.api.jobs.conftest import ASK, Client

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
STAGES = ["queue", "encode", "denoise", "decode"]
Make = Callable[..., Client]


@pytest.fixture(scope="module")
def collected() -> InMemorySpanExporter:
    """OpenTelemetry lets a process set its provider once."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(collected: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    collected.clear()
    yield collected
    collected.clear()


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in spans.get_finished_spans() if span.name == name]
    return found


def children(spans: InMemorySpanExporter, of: ReadableSpan) -> list[ReadableSpan]:
    """By the time at which they began."""
    mine = [
        span
        for span in spans.get_finished_spans()
        if span.parent and span.parent.span_id == of.context.span_id
    ]
    return sorted(mine, key=lambda span: span.start_time or 0)


def check_stages(whole: ReadableSpan, stages: list[ReadableSpan]) -> None:
    """They follow one another inside the whole, within a tenth of a second."""
    slack = 1e8
    for stage in stages:
        assert stage.end_time >= stage.start_time
        assert whole.start_time - slack <= stage.start_time
        assert stage.end_time <= whole.end_time + slack
    for before, after in pairwise(stages):
        assert before.end_time <= after.start_time + slack


def test_a_request_and_its_stages(make: Make, spans: InMemorySpanExporter) -> None:
    client = make()
    sent = {**HEADERS, "x-request-id": "traced"}
    assert client.http.post("/txt2img", json=ASK, headers=sent).status_code == 200
    whole = named(spans, "POST /txt2img")
    assert format(whole.context.trace_id, "032x") == TRACE
    assert format(whole.parent.span_id, "016x") == PARENT
    assert whole.attributes["request.id"] == "traced"
    assert whole.attributes["http.response.status_code"] == 200
    stages = children(spans, whole)
    assert [stage.name for stage in stages] == [*STAGES, "format"]
    check_stages(whole, stages)


def test_a_clients_mistake_is_no_error_of_ours(make: Make, spans: InMemorySpanExporter) -> None:
    make().http.post("/txt2img", json={})
    whole = named(spans, "POST /txt2img")
    assert whole.attributes["http.response.status_code"] == 400
    assert whole.status.is_ok or whole.status.is_unset


def test_a_job_belongs_to_the_trace_that_asked_for_it(
    make: Make, spans: InMemorySpanExporter
) -> None:
    client = make()
    body = {"task": "txt2img", "parameters": ASK, "id": "traced"}
    client.http.post("/jobs", json=body, headers=HEADERS)
    client.until("traced", "succeeded")
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if any(span.name == "job txt2img" for span in spans.get_finished_spans()):
            break
        time.sleep(0.02)
    asked, job = named(spans, "POST /jobs"), named(spans, "job txt2img")
    assert job.context.trace_id == asked.context.trace_id == int(TRACE, 16)
    assert job.parent.span_id == asked.context.span_id
    assert job.attributes["job.id"] == "traced"
    assert [stage.name for stage in children(spans, job)] == STAGES


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_off_unless_a_collector_is_named(environment: dict[str, str]) -> None:
    assert not tracing.configure(environment)
