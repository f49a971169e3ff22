"""The middleware: who answers what, and in which form errors are told."""

from __future__ import annotations

import logging

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from api.http.gateway import Asgi, Gateway, Scope
from runnables.settings import Settings


async def _host(request: Request) -> Response:
    return PlainTextResponse("of the host")


async def _ours(request: Request) -> Response:
    return JSONResponse({"bytes": len(await request.body())})


async def _breaks(request: Request) -> Response:
    raise ValueError("a secret")


@pytest.fixture
def gateway() -> Gateway:
    gateway = Gateway(Settings(max_body_mb=1, log_format="json"))
    gateway.serve(Starlette(routes=[Route("/ours", _ours, methods=["POST"])]))
    return gateway


@pytest.fixture
def client(gateway: Gateway) -> TestClient:
    host = Starlette(routes=[Route("/metrics", _host), Route("/ours", _breaks)])
    return TestClient(gateway.around(host))


def test_the_host_keeps_its_own(client: TestClient) -> None:
    assert client.get("/metrics").text == "of the host"


def test_ours_is_answered_by_us(client: TestClient) -> None:
    assert client.post("/ours", content=b"123").json() == {"bytes": 3}


def test_what_is_ours_passes_none_of_the_hosts_middleware(gateway: Gateway) -> None:
    """BentoML's keeps a metric of every path that it sees."""
    seen: list[str] = []

    def counting(app: Asgi) -> Asgi:
        async def middleware(scope: Scope, receive: Asgi, send: Asgi) -> None:
            seen.append(scope.get("path", ""))
            await app(scope, receive, send)

        return middleware

    host = Starlette(routes=[Route("/metrics", _host)])
    host.add_middleware(gateway.around)
    host.add_middleware(counting)
    with TestClient(host) as client:
        assert client.post("/ours", content=b"123").json() == {"bytes": 3}
        assert client.get("/nothing").status_code == 404
        assert client.get("/metrics").text == "of the host"
    assert set(seen) == {"", "/metrics"}  # the first is its life's


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/metrics", 405), ("GET", "/static_content/swagger-ui.css", 404)],
)
def test_errors_of_the_host_are_told_in_our_form(
    client: TestClient, method: str, path: str, status: int
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert set(response.json()) == {"error", "detail"}
    assert response.json()["detail"][0]["loc"] == ["path"]


def test_a_path_that_only_begins_like_the_hosts_is_ours(client: TestClient) -> None:
    assert client.get("/metrics-of-mine").status_code == 404


def test_every_response_carries_the_id_of_its_log_line(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "stable_diffusion.access"):
        first, second = (client.post("/ours").headers["x-request-id"] for _ in range(2))
    assert first != second
    assert first in caplog.text


def test_headers_are_limited(client: TestClient) -> None:
    assert client.post("/ours", headers={"x": "y" * 60_000}).status_code == 200
    answer = client.post("/ours", headers={"x": "y" * 70_000})
    assert answer.status_code == 431
    assert set(answer.json()) == {"error", "detail"}


def test_a_path_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(Settings())
    gateway.serve(Starlette())
    with caplog.at_level(logging.INFO, "stable_diffusion.access"):
        TestClient(gateway.around(Starlette())).get("/a%0aINFO forged%1b[31m")
    assert len(caplog.messages) == 1 and "\n" not in caplog.messages[0]
    assert "\x1b" not in caplog.messages[0]
