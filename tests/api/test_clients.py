"""Other people's APIs share our keys, limits, readiness, metrics and fetching."""

from __future__ import annotations

import base64
import io
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from PIL import Image
from starlette.testclient import TestClient

from api.app import Api
from api.http import fetch
from api.http.keys import new
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings

Start = Callable[..., StableDiffusionRunnable]
#: path, body, where its errors tell what is wrong
POSTS: list[tuple[str, dict[str, Any], str]] = [
    ("/txt2img", {"prompt": "x", "num_inference_steps": 1}, "detail"),
    ("/v1/images/generations", {"prompt": "x", "num_inference_steps": 1}, "error"),
    ("/sdapi/v1/txt2img", {"prompt": "x", "steps": 1}, "errors"),
]
GETS = ["/v1/models", "/sdapi/v1/options", "/sdapi/v1/progress", "/imagine?prompt=x", "/samplers"]
GETS += ["/embeddings", "/sdapi/v1/embeddings"]


def client(runnable: StableDiffusionRunnable) -> TestClient:
    return TestClient(Api(runnable).app(), raise_server_exceptions=False)


def png(size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("path", "body", "form"), POSTS)
def test_all_need_a_key_and_a_model(path: str, body: dict[str, Any], form: str) -> None:
    loading = client(StableDiffusionRunnable(Settings(api_keys="secret")))
    refused = loading.post(path, json=body)
    assert refused.status_code == 401
    assert refused.json()[form]
    basic = base64.b64encode(b"anyone:secret").decode()
    for headers in (
        {"authorization": "Bearer secret"},
        {"x-api-key": "secret"},
        {"authorization": f"Basic {basic}"},
    ):
        response = loading.post(path, json=body, headers=headers)
        assert response.status_code == 503
        assert "loading" in str(response.json()[form]) + response.text
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", GETS)
def test_all_that_look_need_a_key(path: str) -> None:
    guarded = client(StableDiffusionRunnable(Settings(api_keys="secret")))
    assert guarded.get(path).status_code == 401


def test_a_rate_is_shared_by_all_apis(start: Start, tmp_path: Path) -> None:
    secret, key = new(rate=len(POSTS))
    (tmp_path / "keys").write_text(key.line())
    served = client(start("sd1", api_keys=str(tmp_path / "keys")))
    headers = {"x-api-key": secret}
    for path, body, _ in POSTS:
        assert served.post(path, json=body, headers=headers).status_code == 200
    for path, body, form in POSTS:
        response = served.post(path, json=body, headers=headers)
        assert response.status_code == 429
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert response.json()[form]
    assert served.get("/sdapi/v1/progress", headers=headers).status_code == 200, "looking is free"


def test_requests_at_a_time(start: Start, tmp_path: Path) -> None:
    secret, key = new(concurrency=1)
    (tmp_path / "keys").write_text(key.line())
    runnable = start("sd1", api_keys=str(tmp_path / "keys"))
    served = client(runnable)
    headers = {"x-api-key": secret}
    long = {"prompt": "x", "num_inference_steps": 150, "num_images_per_prompt": 8}
    first: list[int] = []

    def draw() -> None:
        first.append(served.post("/txt2img", json=long, headers=headers).status_code)

    drawing = threading.Thread(target=draw)
    drawing.start()
    while drawing.is_alive() and not runnable.load().active:
        time.sleep(0.001)
    stream = {"prompt": "x", "num_inference_steps": 1, "stream": True}
    second = served.post("/v1/images/generations", json=stream, headers=headers)
    drawing.join()
    assert (first, second.status_code) == ([200], 429)
    for _ in range(2):  # a stream's place is free again after it
        response = served.post("/v1/images/generations", json=stream, headers=headers)
        assert response.status_code == 200
        assert "image_generation.completed" in response.text


def test_clip_skip_of_the_webui(start: Start) -> None:
    served = client(start("sd1"))
    ask = {"prompt": "x", "steps": 1, "seed": 1, "width": 64, "height": 64}
    drawn = []
    for stop in (1, 2, 13):
        settings = {"CLIP_stop_at_last_layers": stop}
        drawn.append(served.post("/sdapi/v1/txt2img", json={**ask, "override_settings": settings}))
    assert [response.status_code for response in drawn] == [200, 200, 400]
    assert drawn[0].json()["images"] != drawn[1].json()["images"]


def test_prompt_weights_of_the_webui(start: Start) -> None:
    served = client(start("sd1"))
    ask = {"steps": 1, "seed": 1, "width": 64, "height": 64}

    def drawn(prompt: str) -> object:
        response = served.post("/sdapi/v1/txt2img", json={**ask, "prompt": prompt})
        assert response.status_code == 200, response.text
        image = base64.b64decode(response.json()["images"][0])
        return Image.open(io.BytesIO(image)).tobytes()

    assert drawn("a cat") != drawn("a (cat:1.8)")
    assert drawn("a (cat)") == drawn("a (cat:1.1)")
    assert drawn(r"a \(cat\)") != drawn("a (cat)")


def test_a_lora_of_the_webui_is_ours(start: Start) -> None:
    ask = {"prompt": "a cat <lora:sketch:0.5>", "steps": 1, "width": 64, "height": 64}
    response = client(start("sd1")).post("/sdapi/v1/txt2img", json=ask)
    assert response.status_code in (400, 404), "none is installed here"
    assert "lora" in response.text


class Handler(BaseHTTPRequestHandler):
    """Answers an image."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(png())

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A host with an image, over TLS on the loopback interface."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    fetch._tls.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    fetch._tls.cache_clear()


def test_images_are_fetched_where_the_operator_says_so(start: Start, images: str) -> None:
    url = f"https://{images}/a.png"
    ask = '{"prompt": "x", "num_inference_steps": 2}'
    webui = {"prompt": "x", "steps": 2, "init_images": [url]}

    def statuses(**settings: object) -> list[int]:
        served = client(start("sd1", **settings))
        form = {"img": (None, url), "data": (None, ask)}
        edit = {"image": (None, url), "prompt": (None, "x")}
        return [
            served.post("/img2img", files=form).status_code,
            served.post("/v1/images/edits", files=edit).status_code,
            served.post("/sdapi/v1/img2img", json=webui).status_code,
        ]

    assert statuses() == [400] * 3
    assert statuses(fetch_hosts=images) == [400] * 3, "its address is not public"
    assert statuses(fetch_hosts=images, fetch_insecure=True) == [200] * 3
