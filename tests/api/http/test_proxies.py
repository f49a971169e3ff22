"""Path prefix and proxies: what is believed, whom, and where requests end then."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from api.http.gateway import Gateway
from runnables.settings import Settings

SENT = {
    "X-Forwarded-Prefix": "/sd",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "images.example",
    "X-Forwarded-For": "203.0.113.9",
}


async def _seen(request: Request) -> Response:
    assert request.client is not None
    there = str(request.url_for("seen"))
    forwarded = [name for name in request.headers if name.startswith("x-forwarded")]
    return JSONResponse([there, str(request.base_url), request.client.host, forwarded])


def client(peer: str = "10.0.0.7", **settings: Any) -> TestClient:
    gateway = Gateway(Settings(**settings))
    gateway.serve(Starlette(routes=[Route("/seen", _seen, name="seen")]))
    return TestClient(gateway.around(Starlette()), client=(peer, 1))


def test_a_trusted_proxy_is_believed() -> None:
    trusting = client(trusted_proxies="192.168.0.1, 10.0.0.0/8")
    assert trusting.get("/seen", headers=SENT).json() == [
        "https://images.example/sd/seen",
        "https://images.example/sd/",
        "203.0.113.9",
        [],
    ]


@pytest.mark.parametrize("trusted", ["", "10.0.0.8", "192.168.0.0/16"])
def test_others_are_not(trusted: str) -> None:
    answer = client(trusted_proxies=trusted).get("/seen", headers=SENT).json()
    assert answer == ["http://testserver/seen", "http://testserver/", "10.0.0.7", []]


def test_everybody_is_where_the_operator_says_so() -> None:
    answer = client(trusted_proxies="*").get("/seen", headers=SENT).json()
    assert answer[0] == "https://images.example/sd/seen"


@pytest.mark.parametrize("path", ["/seen", "/sd/seen"])
def test_the_setting_holds_with_and_without_stripping(path: str) -> None:
    assert client(path_prefix="/sd/").get(path).json()[0] == "http://testserver/sd/seen"


def test_a_path_that_only_begins_like_the_prefix_is_another() -> None:
    assert client(path_prefix="/se").get("/seen").json()[0] == "http://testserver/se/seen"
    assert client(path_prefix="/sd").get("/sdd/seen").status_code == 404


@pytest.mark.parametrize("sent", ["//evil.example", "/a b", "javascript:", "/<script>", ""])
def test_what_is_no_prefix_is_not_taken(sent: str) -> None:
    headers = {"X-Forwarded-Prefix": sent, "X-Forwarded-Host": "a/b@c"}
    answer = client(trusted_proxies="*").get("/seen", headers=headers).json()
    assert answer[0] == "http://testserver/seen"


def test_the_last_value_is_the_proxys_own() -> None:
    headers = {"X-Forwarded-Prefix": "/evil, /sd", "X-Forwarded-Host": "evil.example, good.example"}
    answer = client(trusted_proxies="*").get("/seen", headers=headers).json()
    assert answer[0] == "http://good.example/sd/seen"


@pytest.mark.parametrize(
    "wrong", [{"path_prefix": "sd"}, {"path_prefix": "/a//b"}, {"trusted_proxies": "nginx"}]
)
def test_wrong_settings_stop_the_start(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)
