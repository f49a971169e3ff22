"""Spans of a Lambda function, by the X-Ray daemon that Lambda runs beside it.

The form is that of AWS' own distribution of OpenTelemetry (its `otlp_udp_exporter.py`): behind the
daemon's header, OTLP's binary form in base64, as one datagram. So nothing waits for a collector.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

HEADER = b'{"format":"json","version":1}\n'
SAMPLED = b"T1S"  # others are not recorded


class DaemonExporter(SpanExporter):
    """Sends spans to `HOST:PORT`, as Lambda names the daemon in AWS_XRAY_DAEMON_ADDRESS."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._to = host, int(port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them; nobody is told whether they have come."""
        data = base64.b64encode(encode_spans(spans).SerializeToString())
        try:
            self._socket.sendto(HEADER + SAMPLED + data, self._to)
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the socket."""
        self._socket.close()
