"""What a visitor uploads is checked before Gradio gets it."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from ui.client import Service, ServiceError
from ui.guard import COOKIE, MAX_PLAIN, Guard
from ui.inprocess import InProcess

LIMIT, PIXELS = 100_000, 10_000


class Page:
    """A page that counts what reaches it, in front of a service that knows one key."""

    def __init__(self, key: str = "secret") -> None:
        self.key, self.asked, self.reached = key, 0, list[int]()
        api = Starlette(routes=[Route("/loras", self._loras)])
        http = httpx.AsyncClient(transport=InProcess(api), base_url="http://service")
        self.service = Service(http)
        app = Starlette(routes=[Route("/{path:path}", self._upload, methods=["GET", "POST"])])
        guard = Guard(app, self.service, LIMIT, PIXELS)
        self.client = TestClient(guard, raise_server_exceptions=False)

    async def _loras(self, request: Request) -> Response:
        self.asked += 1
        good = request.headers.get("x-api-key", "") == self.key
        return JSONResponse([] if good else {"error": "no key"}, 200 if good else 401)

    async def _upload(self, request: Request) -> Response:
        self.reached.append(len(await request.body()))
        return JSONResponse({"read": self.reached[-1]})

    def post(self, data: bytes, key: str = "secret", **options: Any) -> httpx.Response:
        headers = {"cookie": f"{COOKIE}={key}"} if key else {}
        files = {"files": ("a.png", data)}
        return self.client.post("/gradio_api/upload", files=files, headers=headers, **options)


@pytest.fixture
def page() -> Page:
    return Page()


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100))


def test_a_picture_goes_on(page: Page) -> None:
    answer = page.post(png(100, 100))
    assert answer.status_code == 200
    assert page.reached == [int(answer.request.headers["content-length"])]


@pytest.mark.parametrize("key", ["", "wrong", "%22%3B"])
def test_without_the_key_nothing_is_read(page: Page, key: str) -> None:
    assert page.post(png(10, 10), key).status_code == 401
    assert page.reached == []


def test_a_good_key_is_not_checked_again_and_a_wrong_one_is(page: Page) -> None:
    for key in ("secret", "secret", "wrong", "wrong"):
        page.post(png(10, 10), key)
    assert page.asked == 3


def test_a_service_without_keys_takes_uploads_of_everybody() -> None:
    assert Page(key="").post(png(10, 10), "").status_code == 200


@pytest.mark.parametrize("size", [(101, 100), (1, 20_000), (30_000, 30_000), (65_000, 65_000)])
def test_pictures_of_too_many_pixels_never_reach_gradio(page: Page, size: tuple[int, int]) -> None:
    answer = page.post(claiming(*size))
    assert answer.status_code == 413
    assert "pixels" in answer.text
    assert page.reached == []


def test_scans_of_a_progressive_jpeg_are_bounded(page: Page) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (50, 50)).save(buffer, "JPEG", progressive=True)
    assert page.post(buffer.getvalue()).status_code == 200
    assert page.post(buffer.getvalue() + b"\xff\xda" * 200).status_code == 413


def test_what_is_no_picture_goes_on(page: Page) -> None:
    assert page.post(b"hello").status_code == 200


def test_too_many_bytes(page: Page) -> None:
    assert page.post(b"x" * LIMIT).status_code == 413
    plain = page.client.post("/gradio_api/queue/join", content=b"x" * (MAX_PLAIN + 1))
    assert plain.status_code != 200
    assert page.reached == []


def test_what_is_not_multipart_inside(page: Page) -> None:
    headers = {"content-type": "multipart/form-data", "cookie": f"{COOKIE}=secret"}
    assert page.client.post("/upload", content=b"x", headers=headers).status_code == 400


def test_other_requests_go_on_without_a_key(page: Page) -> None:
    assert page.client.get("/").status_code == 200
    assert page.client.post("/queue/join", json={"data": []}).status_code == 200


def test_a_service_that_is_not_there() -> None:
    service = Service(httpx.AsyncClient(base_url="http://127.0.0.1:9"))
    with pytest.raises(ServiceError):
        asyncio.run(service.check_key("secret"))
    client = TestClient(Guard(Starlette(), service, LIMIT, PIXELS))
    assert client.post("/upload", files={"files": ("a.png", png(8, 8))}).status_code == 503
