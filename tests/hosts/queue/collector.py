"""A stand-in for an OpenTelemetry collector: it takes OTLP over HTTP, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Collected:
    """A span, and the service whose process exported it."""

    service: str
    span: Span

    @property
    def attributes(self) -> dict[str, str]:
        """The span's attributes that are texts."""
        return _values(self.span.attributes)

    @property
    def remote(self) -> str | None:
        """The service of AWS that the span is a call of."""
        return self.attributes.get("rpc.service")


def read(body: bytes) -> list[Collected]:
    """Return the spans of an export, in OTLP's binary form."""
    return [
        Collected(_values(one.resource.attributes)["service.name"], span)
        for one in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in one.scope_spans
        for span in scope.spans
    ]


def graph(spans: Iterable[Collected]) -> set[tuple[str, str]]:
    """Return which service called which: what a service map is drawn from.

    A service of AWS that a span calls lies between that span and its children of other services. A
    span without a parent is called by "", and one whose parent nobody exported by "?".
    """
    known = {one.span.span_id: one for one in spans}
    found = set()
    for one in known.values():
        parent = known.get(one.span.parent_span_id)
        if parent is None:
            found.add(("?" if one.span.parent_span_id else "", one.service))
        elif parent.service != one.service:
            found.add((parent.remote or parent.service, one.service))
        if one.remote:
            found.add((one.service, one.remote))
    return found


def _values(attributes: Iterable[Any]) -> dict[str, str]:
    return {one.key: one.value.string_value for one in attributes}


@contextmanager
def collecting() -> Iterator[tuple[str, list[Collected]]]:
    """Its address, and the spans that have come, which grow."""
    spans: list[Collected] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            right = self.path == "/v1/traces"
            right &= self.headers["content-type"] == "application/x-protobuf"
            if right:
                spans.extend(read(body))
            self.send_response(200 if right else 400)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", spans
    finally:
        server.shutdown()
