"""OpenTelemetry spans of requests, jobs, tasks of the queue, and their stages.

A span continues the trace that came with its request: in W3C's `traceparent`, in another header
that OTEL_PROPAGATORS names, or else in AWS X-Ray's own. What is passed on is W3C's.

Off, and nearly free, unless the operator names a collector in OpenTelemetry's own variables:
OTEL_EXPORTER_OTLP_ENDPOINT (OTLP over HTTP), OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and so on. A
provider that a host has set globally is used as it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.aws import AwsXRayPropagator
from opentelemetry.propagators.aws.aws_xray_propagator import TRACE_HEADER_KEY
from opentelemetry.trace import Span, SpanKind, StatusCode

from runnables.errors import StableDiffusionError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
NAME = "stable_diffusion"
XRAY = TRACE_HEADER_KEY.lower()
Attributes = Mapping[str, str | int | float | bool]
_XRAY = AwsXRayPropagator()


def configure(environment: Mapping[str, str] = os.environ, service: str = NAME) -> bool:
    """Export spans where the environment says so. Return whether it does.

    Args:
        service: The name of this process in traces, unless OTEL_SERVICE_NAME has another.
    """
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return False
    if not any(environment.get(name) for name in ENDPOINTS):
        return False
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    export_by(OTLPSpanExporter(), service)
    return True


def export_by(exporter: Any, service: str) -> None:
    """Export spans by an exporter of OpenTelemetry's SDK, under the name of a service."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def flush() -> None:
    """Send what is waiting, before a stop."""
    provider: Any = trace.get_tracer_provider()
    if hasattr(provider, "force_flush"):
        provider.force_flush(5000)


def context_of(carrier: Mapping[str, str]) -> Context:
    """The trace that headers carry, by their names in lower case; empty where they carry none."""
    xray = _XRAY.extract({TRACE_HEADER_KEY: carrier.get(XRAY, "")})
    return propagate.extract(carrier, xray)


@contextmanager
def span(
    name: str, carrier: Mapping[str, str], kind: SpanKind, attributes: Attributes
) -> Iterator[Span]:
    """Trace a piece of work that began elsewhere, as a child of the span that `carrier` names.

    Args:
        carrier: The headers that carry the trace, by their names in lower case, or none.
    """
    with _tracer().start_as_current_span(
        name,
        context=context_of(carrier),
        kind=kind,
        attributes=dict(attributes),
        record_exception=False,  # most are mistakes of clients; `answer` marks ours
        set_status_on_exception=False,
    ) as current:
        yield current


@contextmanager
def answer(name: str, headers: Mapping[str, str], attributes: Attributes) -> Iterator[None]:
    """Trace the answer to a request, with its status: 200, or that of the error that is raised."""
    with span(name, headers, SpanKind.SERVER, attributes) as current:
        try:
            yield
        except Exception as error:
            status = error.status if isinstance(error, StableDiffusionError) else 500
            current.set_attribute("http.response.status_code", status)
            if status >= 500:
                current.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        current.set_attribute("http.response.status_code", 200)


@contextmanager
def aws_call(service: str, operation: str, kind: SpanKind = SpanKind.CLIENT) -> Iterator[None]:
    """Trace a call of AWS inside the current span, by OpenTelemetry's conventions for AWS' SDK."""
    if not trace.get_current_span().is_recording():
        yield
        return
    about = {"rpc.system": "aws-api", "rpc.service": service, "rpc.method": operation}
    with _tracer().start_as_current_span(f"{service}/{operation}", kind=kind, attributes=about):
        yield


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Trace a piece of work inside the current span."""
    if not trace.get_current_span().is_recording():
        yield
        return
    with _tracer().start_as_current_span(name):
        yield


def stages(timings: Mapping[str, float], seconds_ago: float, parent: Context | None = None) -> None:
    """Trace the stages of a result, one after the other.

    Args:
        timings: Seconds by stage, in their order.
        seconds_ago: The time since the first one began.
        parent: The span around them; by default the current one, if there is one.
    """
    if parent is None and not trace.get_current_span().is_recording():
        return
    tracer = _tracer()
    at = time.time_ns() - _nanoseconds(seconds_ago)
    for stage, seconds in timings.items():
        child = tracer.start_span(stage, context=parent, start_time=at)
        at += _nanoseconds(seconds)
        child.end(end_time=at)


def finished(
    name: str,
    traceparent: str | None,
    started: float,
    attributes: Attributes,
    timings: Mapping[str, float],
    error: str | None = None,
) -> None:
    """Trace work that has ended, with its stages; its parent may be of another process.

    Args:
        started: The Unix time of its start.
    """
    context = propagate.extract({"traceparent": traceparent} if traceparent else {})
    whole = _tracer().start_span(
        name,
        context=context,
        kind=SpanKind.CONSUMER,
        attributes=dict(attributes),
        start_time=_nanoseconds(started),
    )
    stages(timings, time.time() - started, trace.set_span_in_context(whole))
    if error is not None:
        whole.set_status(StatusCode.ERROR, error)
    whole.end()


def carried() -> dict[str, str]:
    """Return the header that continues the current span; none where nobody records it."""
    if not trace.get_current_span().is_recording():
        return {}
    return {"traceparent": value} if (value := traceparent()) else {}


def local_root(remote: str) -> dict[str, str]:
    """Attributes by which X-Ray shows this process as a service, where no request began its span.

    OpenTelemetry's exporter for X-Ray, which CloudWatch's agent uses, takes every other span with a
    parent for a part of the service that the parent belongs to.

    Args:
        remote: The service that the work came from.
    """
    resource = getattr(trace.get_tracer_provider(), "resource", None)
    service = str(resource.attributes["service.name"]) if resource else NAME
    names = {"aws.local.service": service, "aws.remote.service": remote}
    return {"aws.span.kind": "LOCAL_ROOT", **names}


def traceparent() -> str | None:
    """Return the `traceparent` of the current span, which may go elsewhere."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


def _tracer() -> trace.Tracer:
    return trace.get_tracer(NAME)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
