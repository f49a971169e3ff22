"""API Gateway's part for the front door, on the loopback interface: HTTP to proxy events."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from hosts.queue.front import handler
from hosts.queue.front.publish import Front


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a load test's users all connect at once


@contextmanager
def serve(door: Front, keys: Mapping[str, str], port: int = 0) -> Iterator[str]:
    """The API's address.

    Args:
        keys: API key -> its id; calls without one of them get 403, as from API Gateway.
    """

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            key = keys.get(self.headers.get("x-api-key", ""))
            if key is None:
                self._answer(403, '{"message": "Forbidden"}')
                return
            length = int(self.headers.get("content-length") or 0)
            url = urlsplit(self.path)
            answer = handler.answer(
                door,
                {
                    "httpMethod": self.command,
                    "path": url.path,
                    "queryStringParameters": dict(parse_qsl(url.query)),
                    "headers": dict(self.headers.items()),
                    "body": self.rfile.read(length).decode(errors="replace"),
                    "requestContext": {"identity": {"apiKeyId": key}},
                },
            )
            self._answer(answer["statusCode"], answer["body"])

        do_GET = do_POST = do_DELETE = _handle

        def _answer(self, status: int, body: str) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = _Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
