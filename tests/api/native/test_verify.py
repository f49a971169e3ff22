"""`POST /verify`: what a file carries, after the operator's policy has put it there."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.app import Api
from runnables.runnable import StableDiffusionRunnable
from tests.runnables.images.test_provenance import signing

Start = Callable[..., StableDiffusionRunnable]
ASK = {"prompt": "x", "num_inference_steps": 1, "height": 256, "width": 256}


def client(start: Start, **settings: Any) -> TestClient:
    return TestClient(Api(start("sd1", **settings)).app())


def verified(client: TestClient, data: bytes) -> dict[str, Any]:
    answer = client.post("/verify", files={"img": ("image", data)})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def generated(client: TestClient) -> bytes:
    return client.post("/txt2img", json=ASK, headers={"accept": "image/png"}).content


def test_all_three_are_found_in_generated_and_enlarged_files(start: Start, tmp_path: Path) -> None:
    signed = signing(tmp_path)
    marking = client(start, watermark="ours", c2pa_cert=signed.c2pa_cert, c2pa_key=signed.c2pa_key)
    data = generated(marking)
    found = verified(marking, data)
    assert found["watermark"]["found"] and "sd-parameters" in found["metadata"]
    assert found["c2pa"]["state"] in ("Valid", "Trusted")
    parts = {"img": ("a.png", data), "data": (None, '{"scale": 2, "output_format": "png"}')}
    larger = marking.post("/upscale", files=parts).content
    found = verified(marking, larger)
    assert found["watermark"]["found"]
    assert found["c2pa"]["state"] in ("Valid", "Trusted")
    ingredient = found["c2pa"]["manifest"]["ingredients"][0]
    assert ingredient["relationship"] == "parentOf"


def test_nothing_is_found_where_nothing_is(start: Start) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    other = client(start, watermark="ours")
    found = verified(other, buffer.getvalue())
    assert (found["c2pa"], found["metadata"]) == (None, None)
    assert not found["watermark"]["found"]
    plain = client(start)
    assert verified(plain, generated(plain))["watermark"] is None
    assert not verified(other, generated(plain))["watermark"]["found"]


@pytest.mark.parametrize(("files", "field"), [({"img": b"no image"}, "img"), ({"x": b""}, "x")])
def test_what_is_no_image_is_named(start: Start, files: dict[str, bytes], field: str) -> None:
    answer = client(start).post("/verify", files=files)
    assert answer.status_code in (400, 415)
    assert answer.json()["detail"][0]["loc"] == [field]
