"""Several models on Ray: each request gets the one it names, and there are more than fit."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from runnables.parameters import TextToImage
from tests.hosts.ray.conftest import config, serve_ray
from tests.runnables.engine import reference
from tests.service.server import Server

#: names that say nothing about the folders behind them
FURTHER = {"second": "sd2", "third": "lcm", "large": "sdxl"}
MEMORY = {"SD_MODELS_MEMORY_GB": "0.006"}  # the default and any two of them, but not three
BROKEN = "broken"
ASKED = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 64, "width": 64}
UNKNOWN = {"prompt": "sea", "model": "another"}


@pytest.fixture(scope="module")
def models(tiny_model: Callable[[str], Path]) -> dict[str, Path]:
    """Name -> folder, the default first."""
    return {"sd1": tiny_model("sd1")} | {name: tiny_model(kind) for name, kind in FURTHER.items()}


@pytest.fixture(scope="module")
def served(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One replica, which keeps fewer models than there are."""
    folder = tmp_path_factory.mktemp("models")
    default, *_ = models.values()
    further = {name: models[name] for name in FURTHER} | {BROKEN: folder / "nothing"}
    path = config(folder, 1, further, SD_MODEL=str(default), **MEMORY)
    with serve_ray(folder, str(path), "--cpus", "1") as running:
        yield running


def post(server: Server, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=300)


def listed(server: Server) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in httpx.get(f"{server.url}/models").json()}


def test_models_are_listed_before_they_are_loaded(served: Server) -> None:
    told = listed(served)
    assert [*told] == ["sd1", *FURTHER, BROKEN]
    assert told["sd1"]["loaded"]
    assert told["sd1"]["height"] == 64
    for name in (*FURTHER, BROKEN):
        assert told[name] == {"name": name, "loaded": False}
    openai = httpx.get(f"{served.url}/v1/models").json()["data"]
    webui = httpx.get(f"{served.url}/sdapi/v1/sd-models").json()
    assert [one["id"] for one in openai] == [one["model_name"] for one in webui] == [*told]


def test_each_model_draws_its_own_images_while_they_take_turns(
    served: Server, models: dict[str, Path]
) -> None:
    bodies = [
        {"prompt": "a red circle", "seed": seed, "model": name, **ASKED}
        for seed in range(3)
        for name in models
    ]

    def draw(body: dict[str, Any]) -> httpx.Response:
        return post(served, "/txt2img", {**body, "output_format": "png"})

    with ThreadPoolExecutor(len(bodies)) as clients:
        answers = list(clients.map(draw, bodies))
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.status_code == 200, answer.text
        image = Image.open(io.BytesIO(answer.content))
        asked = {**body, "model": None}
        expected = reference.generate(models[body["model"]], TextToImage(**asked))
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 2, body
        assert json.loads(image.text["sd-parameters"])["model"] == body["model"]
        assert f"Model: {body['model']}" in image.text["parameters"]
    told = listed(served)
    assert sum(told[name]["loaded"] for name in FURTHER) == 2
    assert {told[name]["family"] for name in FURTHER} == {
        "stable-diffusion",
        "stable-diffusion-xl",
    }
    assert all("defaults" in told[name] and told[name]["height"] == 64 for name in FURTHER)


def test_an_answer_in_json_names_the_model(served: Server) -> None:
    body = {"prompt": "sea", "model": "large", "output_format": "json", **ASKED}
    assert post(served, "/txt2img", body).json()["parameters"]["model"] == "large"
    body = {"prompt": "sea", "output_format": "json", **ASKED}
    assert post(served, "/txt2img", body).json()["parameters"]["model"] == "sd1"


def test_jobs_are_drawn_by_the_model_they_name(served: Server) -> None:
    job = {"task": "txt2img", "parameters": {"prompt": "sea", "model": "third", "seed": 1, **ASKED}}
    accepted = post(served, "/jobs", job)
    assert accepted.status_code == 202, accepted.text
    assert accepted.json()["parameters"]["model"] == "third"
    where = served.url + accepted.headers["location"]
    with httpx.stream("GET", f"{where}/events", timeout=300) as events:
        last = [line for line in events.iter_lines() if line.startswith("data:")][-1]
    final = json.loads(last.removeprefix("data:"))
    assert final["state"] == "succeeded", final
    url = served.url + httpx.get(where).json()["images"][0]["url"]
    drawn = Image.open(io.BytesIO(httpx.get(url).content))
    assert json.loads(drawn.getexif()[0x010E])["model"] == "third"


def test_clients_of_other_apis_choose_too(served: Server) -> None:
    drawn = post(
        served, "/v1/images/generations", {"prompt": "sea", "model": "second", "seed": 1}
    ).json()
    data = base64.b64decode(drawn["data"][0]["b64_json"])
    assert json.loads(Image.open(io.BytesIO(data)).text["sd-parameters"])["model"] == "second"
    options = {"sd_model_checkpoint": "second"}
    told = post(
        served,
        "/sdapi/v1/txt2img",
        {"prompt": "sea", "steps": 2, "override_settings": options},
    ).json()
    assert json.loads(told["info"])["sd_model_name"] == "second"
    for model in ("second", "sd1"):  # for the same key's later requests
        chosen = post(served, "/sdapi/v1/options", {"sd_model_checkpoint": model})
        assert chosen.status_code == 200, chosen.text
        now = httpx.get(f"{served.url}/sdapi/v1/options").json()
        assert now["sd_model_checkpoint"].startswith(model)


def test_a_model_that_cannot_be_loaded_says_so(served: Server) -> None:
    failed = post(served, "/txt2img", {"prompt": "sea", "model": BROKEN})
    assert failed.status_code == 503
    assert failed.json()["detail"][0]["loc"] == ["model"]
    assert "the model broken cannot be loaded: SD_MODEL=" in failed.json()["error"]
    assert post(served, "/txt2img", {"prompt": "sea", **ASKED}).status_code == 200
    assert not listed(served)[BROKEN]["loaded"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/txt2img", UNKNOWN),
        ("/jobs", {"task": "txt2img", "parameters": UNKNOWN}),
        ("/v1/images/generations", UNKNOWN),
        (
            "/sdapi/v1/txt2img",
            {"prompt": "sea", "override_settings": {"sd_model_checkpoint": "another"}},
        ),
    ],
)
def test_an_unknown_model_is_404(served: Server, path: str, body: dict[str, Any]) -> None:
    refused = post(served, path, body)
    assert refused.status_code == 404, refused.text
    assert "another" in refused.text
    assert "sd1, second, third, large, broken" in refused.text
    if path in ("/txt2img", "/jobs"):
        assert refused.json()["detail"][0]["loc"] == ["model"]


def test_the_replicas_load_and_unload_a_model(served: Server) -> None:
    post(served, "/txt2img", {"prompt": "sea", "model": "second", **ASKED})
    unloaded = post(served, "/models/second/unload", {})
    assert unloaded.status_code == 200 and unloaded.json()["loaded"] is False, unloaded.text
    loaded = post(served, "/models/second/load", {})
    assert loaded.status_code == 200 and loaded.json()["loaded"] is True, loaded.text
    assert post(served, "/models/another/load", {}).status_code == 404
    broken = post(served, f"/models/{BROKEN}/load", {})
    assert broken.status_code == 503 and "cannot be loaded" in broken.json()["error"]
