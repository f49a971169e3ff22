"""Trace context carried along: W3C `traceparent`, and AWS X-Ray's header.

Spans go to `OTEL_EXPORTER_OTLP_ENDPOINT` where that is set; the ids travel in any case.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags

W3C = re.compile(r"^00-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})$")
XRAY = re.compile(r"^1-(?P<time>[0-9a-f]{8})-(?P<rest>[0-9a-f]{24})$")


def set_up() -> None:
    """Export spans, where an endpoint is set."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def span(name: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """A span that continues the caller's trace, if there is one."""
    parent = context_of(headers)
    around = trace.set_span_in_context(NonRecordingSpan(parent)) if parent else None
    tracer = trace.get_tracer("hosts.queue")
    with tracer.start_as_current_span(name, context=around) as current:
        yield current


def context_of(headers: Mapping[str, str]) -> SpanContext | None:
    """The caller's span, from either header; None where neither is well-formed."""
    found = W3C.match(headers.get("traceparent", ""))
    if found:
        flags = int(found["flags"], 16)
        return _context(found["trace"], found["span"], flags)
    fields = dict(
        part.strip().partition("=")[::2] for part in headers.get("x-amzn-trace-id", "").split(";")
    )
    root = XRAY.match(fields.get("Root", ""))
    parent = fields.get("Parent", "")
    if root and re.fullmatch(r"[0-9a-f]{16}", parent):
        return _context(root["time"] + root["rest"], parent, int(fields.get("Sampled") == "1"))
    return None


def traceparent(current: Span) -> str | None:
    """The span in W3C's form; None where there is no trace."""
    context = current.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _context(trace_id: str, span_id: str, flags: int) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(flags))
