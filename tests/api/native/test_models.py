"""Several models behind each of the APIs."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.app import Api
from runnables.checkpoints.sources import Sources
from runnables.images import codec
from runnables.runnable import StableDiffusionRunnable

ASK = {"prompt": "a cat", "num_inference_steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def client(
    start: Callable[..., StableDiffusionRunnable],
    tiny_model: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """sd1, and sd2 and a broken one beside it."""
    jobs = tmp_path_factory.mktemp("jobs")
    models = f"sd2={tiny_model('sd2')},broken={jobs}"
    api = Api(start("sd1", models=models, jobs_dir=str(jobs / "jobs")))
    api.start()
    with TestClient(api.app(), raise_server_exceptions=False) as client:
        yield client
    api.stop()


def model_of(file: bytes) -> str:
    texts = codec.read_texts(file, max_pixels=10**6, field="image")
    return texts["parameters"].partition("Model: ")[2].partition(",")[0]


def png(client: TestClient, **parameters: object) -> bytes:
    response = client.post("/txt2img", json={**ASK, "output_format": "png", **parameters})
    assert response.status_code == 200, response.text
    return response.content


def test_the_request_chooses(client: TestClient) -> None:
    first, second = png(client), png(client, model="sd2")
    assert model_of(first) == model_of(png(client, model="sd1")) == "sd1"
    assert model_of(second) == "sd2"
    assert Image.open(io.BytesIO(first)).tobytes() != Image.open(io.BytesIO(second)).tobytes()


def test_they_are_listed(client: TestClient) -> None:
    png(client, model="sd2")
    listed = client.get("/models").json()
    assert [(one["name"], one["loaded"]) for one in listed] == [
        ("sd1", True),
        ("sd2", True),
        ("broken", False),
    ]
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == [
        "sd1",
        "sd2",
        "broken",
    ]
    assert client.get("/v1/models/sd2").status_code == 200
    titles = [one["title"] for one in client.get("/sdapi/v1/sd-models").json()]
    assert titles == ["sd1", "sd2", "broken"]


def test_the_event_loop_does_not_look_for_models(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in a folder that may be on a network, and be slow or gone."""
    looks: list[bool] = []
    now = Sources._now

    def watched(sources: Sources) -> dict[str, str]:
        looks.append(asyncio._get_running_loop() is not None)
        return now(sources)

    monkeypatch.setattr(Sources, "_now", watched)
    png(client)
    assert not looks, "the default model is known"
    for path in ("/models", "/v1/models", "/v1/models/sd2", "/sdapi/v1/options"):
        assert client.get(path).status_code == 200
    options = {"sd_model_checkpoint": "sd1"}
    assert client.post("/sdapi/v1/options", json=options).status_code == 200
    assert client.post("/models/sd2/load").status_code == 200
    assert len(looks) >= 6
    assert not any(looks)


def test_an_unknown_one_is_404(client: TestClient) -> None:
    for path, body in {
        "/txt2img": {**ASK, "model": "sd3"},
        "/jobs": {"task": "txt2img", "parameters": {**ASK, "model": "sd3"}},
        "/v1/images/generations": {"prompt": "a cat", "model": "sd3"},
        "/sdapi/v1/txt2img": {**ASK, "override_settings": {"sd_model_checkpoint": "sd3"}},
    }.items():
        assert client.post(path, json=body).status_code == 404, path
    answer = client.post("/txt2img", json={**ASK, "model": "sd3"}).json()
    assert answer["detail"][0]["loc"] == ["model"]
    assert "known: sd1, sd2, broken" in answer["error"]


def test_one_that_cannot_be_loaded_says_so(client: TestClient) -> None:
    response = client.post("/txt2img", json={**ASK, "model": "broken"})
    assert response.status_code == 503
    assert "the model broken cannot be loaded" in response.json()["error"]
    assert response.json()["detail"][0]["loc"] == ["model"]
    png(client)


def test_by_openai_and_webui(client: TestClient) -> None:
    body = {"prompt": "a cat", "model": "sd2", "num_inference_steps": 2, "seed": 3}
    drawn = client.post("/v1/images/generations", json=body).json()["data"][0]["b64_json"]
    assert model_of(base64.b64decode(drawn)) == "sd2"
    settings = {"sd_model_checkpoint": "sd2"}
    asked = {"prompt": "a cat", "steps": 2, "override_settings": settings}
    drawn = client.post("/sdapi/v1/txt2img", json=asked).json()["images"][0]
    assert model_of(base64.b64decode(drawn)) == "sd2"
    assert client.post("/sdapi/v1/options", json=settings).status_code == 200
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "sd2"
    assert model_of(png(client)) == "sd1", "the options are the WebUI's alone"


def test_by_a_job(client: TestClient) -> None:
    states = {}
    for model in ("sd2", "broken"):
        body = {"task": "txt2img", "parameters": {**ASK, "model": model}}
        id = client.post("/jobs", json=body).json()["id"]
        end = time.monotonic() + 300
        while (job := client.get(f"/jobs/{id}").json())["state"] in ("queued", "running"):
            assert time.monotonic() < end
            time.sleep(0.05)
        states[model] = job["state"]
        assert job["parameters"]["model"] == model
    assert states == {"sd2": "succeeded", "broken": "failed"}
