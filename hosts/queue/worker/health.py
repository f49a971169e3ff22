"""Probes and metrics over HTTP: /livez, /readyz, /metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


def serve(host: str, port: int, ready: Callable[[], bool], alive: Callable[[], bool]) -> None:
    """Answer from now on, on a daemon thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers: dict[str, Callable[[], tuple[int, bytes]]] = {
                "/livez": lambda: _state(alive(), "alive"),
                "/readyz": lambda: _state(ready(), "ready"),
                "/metrics": lambda: (200, generate_latest()),
            }
            status, body = answers.get(self.path, lambda: (404, b"not found\n"))()
            self.send_response(status)
            kind = CONTENT_TYPE_LATEST if self.path == "/metrics" else "text/plain"
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes are not worth a line."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()


def _state(good: bool, name: str) -> tuple[int, bytes]:
    return (200, f"{name}\n".encode()) if good else (503, f"not {name}\n".encode())
