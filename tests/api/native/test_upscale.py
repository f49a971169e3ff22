"""`/upscale` and `hires` over HTTP, and as jobs."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.app import Api
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from tests import upscalers

Start = Callable[..., StableDiffusionRunnable]


@pytest.fixture(scope="module")
def client(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("upscalers")
    upscalers.build(folder / "tiny-x2")
    jobs = tmp_path_factory.mktemp("jobs")
    api = Api(start("sd1", upscaler_dir=str(folder), jobs_dir=str(jobs), max_pixels=256 * 256))
    api.start()
    yield TestClient(api.app(), raise_server_exceptions=False)
    api.stop()


def png(width: int = 50, height: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def send(client: TestClient, image: bytes | None = None, **data: object) -> Any:
    return client.post(
        "/upscale",
        files={"img": ("a.png", image or png(), "image/png")},
        data={"data": json.dumps(data)},
    )


@pytest.mark.parametrize("name", ["lanczos", "tiny-x2"])
def test_an_image_comes_back_larger(client: TestClient, name: str) -> None:
    response = send(client, upscaler=name, output_format="png")
    assert response.status_code == 200, response.text
    image = Image.open(io.BytesIO(response.content))
    assert (image.format, image.size) == ("PNG", (100, 80))
    assert (response.headers["width"], response.headers["height"]) == ("100", "80")
    assert "upscale;dur=" in response.headers["server-timing"]
    assert "seed" not in response.headers
    told = json.loads(image.text["sd-parameters"])  # type: ignore[attr-defined]
    assert told == {"upscaler": name, "scale": 2.0}


def test_accept_is_heeded(client: TestClient) -> None:
    files = {"img": ("a.png", png(), "image/png")}
    for kind in ("image/webp", "image/jpeg"):
        response = client.post(
            "/upscale", files=files, data={"data": "{}"}, headers={"accept": kind}
        )
        assert response.headers["content-type"] == kind
    body = send(client, output_format="json", scale=1.5).json()
    (one,) = body["images"]
    assert Image.open(io.BytesIO(base64.b64decode(one["image"]))).size == (75, 60)
    assert (one["seed"], one["finish_reason"]) == (None, "success")
    assert body["parameters"] == {"upscaler": "lanczos", "scale": 1.5}


@pytest.mark.parametrize(
    ("data", "status", "loc"),
    [
        ({"scale": 1}, 400, ["data", "scale"]),
        ({"scale": 4.1}, 400, ["data", "scale"]),
        ({"scale": "NaN"}, 400, ["data", "scale"]),
        ({"upscaler": ""}, 400, ["data", "upscaler"]),
        ({"upscaler": "latent"}, 404, ["upscaler"]),
        ({"upscaler": "../tiny-x2"}, 404, ["upscaler"]),
        ({"prompt": "x"}, 400, ["data", "prompt"]),
        ({"deadline_s": 0}, 400, ["data", "deadline_s"]),
        ({"priority": "urgent"}, 400, ["data", "priority"]),
    ],
)
def test_what_is_wrong_is_named(
    client: TestClient, data: dict[str, object], status: int, loc: list[str]
) -> None:
    response = send(client, **data)
    assert response.status_code == status, response.text
    assert response.json()["detail"][0]["loc"] == loc


@pytest.mark.parametrize(
    ("image", "scale", "status", "loc"),
    [
        (png(200, 200), 2, 413, ["scale"]),
        (png(300, 300), 1.1, 413, ["img"]),
        (b"no image", 2, 415, ["img"]),
    ],
)
def test_images_that_are_refused(
    client: TestClient, image: bytes, scale: float, status: int, loc: list[str]
) -> None:
    response = send(client, image, scale=scale)
    assert response.status_code == status, response.text
    assert response.json()["detail"][0]["loc"] == loc


def test_json_and_masks_are_refused(client: TestClient) -> None:
    assert client.post("/upscale", json={}).json()["detail"][0]["loc"] == ["content-type"]
    files = {name: ("a.png", png(), "image/png") for name in ("img", "mask")}
    response = client.post("/upscale", files=files, data={"data": "{}"})
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (400, ["mask"])
    assert client.post("/upscale", files={"img": files["img"]}).status_code == 400


def test_upscalers_are_listed(client: TestClient) -> None:
    assert client.get("/upscalers").json() == [
        {"name": "lanczos", "scale": 2},
        {"name": "tiny-x2", "scale": 2},
    ]


def test_keys_and_readiness_hold_here_too() -> None:
    loading = TestClient(Api(StableDiffusionRunnable(Settings(api_keys="secret"))).app())
    assert send(loading).status_code == 401
    assert loading.get("/upscalers").status_code == 401
    files = {"img": ("a.png", png(), "image/png")}
    key = {"x-api-key": "secret"}
    response = loading.post("/upscale", files=files, data={"data": "{}"}, headers=key)
    assert response.status_code == 503


def test_as_a_job(client: TestClient) -> None:
    asked = {"task": "upscale", "parameters": {"upscaler": "tiny-x2", "output_format": "png"}}
    files = {"img": ("a.png", png(), "image/png")}
    accepted = client.post("/jobs", files=files, data={"data": json.dumps(asked)})
    assert accepted.status_code == 202, accepted.text
    path, end = f"/jobs/{accepted.json()['id']}", time.monotonic() + 300
    while (job := client.get(path).json())["state"] in ("queued", "running"):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert job["state"] == "succeeded", job
    (one,) = job["images"]
    assert (one["width"], one["height"], one["seed"]) == (100, 80, None)
    assert (job["step"], job["steps"], job["parameters"]["scale"]) == (1, 1, 2.0)
    assert Image.open(io.BytesIO(client.get(one["url"]).content)).size == (100, 80)
    missing = client.post("/jobs", json={"task": "upscale", "parameters": {}})
    assert (missing.status_code, missing.json()["detail"][0]["loc"]) == (400, ["img"])


@pytest.mark.parametrize("name", ["latent", "lanczos", "tiny-x2"])
def test_a_second_pass(client: TestClient, name: str) -> None:
    asked = {"prompt": "x", "num_inference_steps": 2, "seed": 1, "output_format": "png"}
    response = client.post("/txt2img", json={**asked, "hires": {"upscaler": name}})
    assert response.status_code == 200, response.text
    assert (response.headers["width"], response.headers["height"]) == ("128", "128")
    image = Image.open(io.BytesIO(response.content))
    assert image.size == (128, 128)
    told = json.loads(image.text["sd-parameters"])  # type: ignore[attr-defined]
    hires = {"scale": 2.0, "strength": 0.7, "num_inference_steps": 2, "upscaler": name}
    assert (told["height"], told["width"], told["hires"]) == (64, 64, hires)
    text = image.text["parameters"]  # type: ignore[attr-defined]
    label = "Latent" if name == "latent" else name
    assert "Size: 64x64" in text
    assert f"Hires upscale: 2.0, Hires steps: 2, Hires upscaler: {label}" in text


@pytest.mark.parametrize(
    ("hires", "status", "loc"),
    [
        ({"scale": 1}, 400, ["hires", "scale"]),
        ({"scale": 5}, 400, ["hires", "scale"]),
        ({"scale": 4.0, "upscaler": "lanczos", "strength": 0}, 400, ["hires", "strength"]),
        ({"strength": 0.1}, 400, ["hires", "strength"]),
        ({"num_inference_steps": 151}, 400, ["hires", "num_inference_steps"]),
        ({"upscaler": "esrgan"}, 404, ["hires", "upscaler"]),
        ({"steps": 3}, 400, ["hires", "steps"]),
        (True, 400, ["hires"]),
    ],
)
def test_a_wrong_second_pass_is_named(
    client: TestClient, hires: object, status: int, loc: list[str]
) -> None:
    asked = {"prompt": "x", "num_inference_steps": 2, "hires": hires}
    response = client.post("/txt2img", json=asked)
    assert response.status_code == status, response.text
    assert response.json()["detail"][0]["loc"] == loc


def test_too_large_a_second_pass_is_413(client: TestClient) -> None:
    asked = {"prompt": "x", "height": 128, "width": 128, "hires": {"scale": 2.5}}
    response = client.post("/txt2img", json=asked)
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (413, ["hires", "scale"])


def test_inpainting_has_no_second_pass(client: TestClient) -> None:
    files = {name: ("a.png", png(64, 64), "image/png") for name in ("img", "mask")}
    data = {"data": json.dumps({"prompt": "x", "hires": {}})}
    response = client.post("/inpaint", files=files, data=data)
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (400, ["data", "hires"])


def test_a_second_pass_after_img2img(client: TestClient) -> None:
    files = {"img": ("a.png", png(64, 64), "image/png")}
    data = {"data": json.dumps({"prompt": "x", "num_inference_steps": 3, "hires": {"scale": 1.5}})}
    response = client.post("/img2img", files=files, data=data)
    assert response.status_code == 200, response.text
    assert Image.open(io.BytesIO(response.content)).size == (96, 96)


def test_previews_and_cancel_know_upscales(client: TestClient, tmp_path: Path) -> None:
    """An upscale has no previews, and its events end as others do."""
    asked = {"task": "upscale", "parameters": {}}
    files = {"img": ("a.png", png(), "image/png")}
    job = client.post("/jobs", files=files, data={"data": json.dumps(asked)}).json()
    events = client.get(f"/jobs/{job['id']}/events?preview_every=1").text
    assert "event: succeeded" in events
    assert client.delete(f"/jobs/{job['id']}").json()["state"] == "succeeded"
