"""What is checked before the protocol's library sees a request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api import errors
from api.mcp.routes import McpRoutes
from runnables.settings import Settings

PING = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client() -> TestClient:
    keys = SimpleNamespace(check=lambda headers: "")
    generation: Any = SimpleNamespace(keys=keys, settings=Settings())
    jobs: Any = None
    routes = McpRoutes(jobs, generation).routes()
    app = Starlette(routes=routes, exception_handlers=dict(errors.HANDLERS))
    return TestClient(app, "http://127.0.0.1", headers=HEADERS)


def test_a_request_is_answered(client: TestClient) -> None:
    answer = client.post("/mcp", content=PING)
    assert answer.status_code == 200
    assert '"result":{}' in answer.text.replace(" ", "")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a": [' + b"[]," * 200_000 + b"1]}", "too many values"),
        (b"[" * 1_000_000, "not JSON"),
        (b"[" + PING + b"]", "must be a JSON object"),
        (b'{"jsonrpc": "2.0", "id": NaN}', "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_what_is_too_much_is_not_parsed_by_the_library(
    client: TestClient, body: bytes, why: str
) -> None:
    answer = client.post("/mcp", content=body)
    assert answer.status_code == 400
    assert why in answer.json()["detail"][0]["msg"]
