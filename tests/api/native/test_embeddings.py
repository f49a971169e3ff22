"""Textual inversions over HTTP: the example of docs/features.md, the WebUI's way, bad input."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from starlette.testclient import TestClient

from api.app import Api
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.service.server import ROOT
from tests.tiny import TEXT_WIDTH

Start = Callable[..., StableDiffusionRunnable]
SMALL: dict[str, Any] = {"num_inference_steps": 1, "seed": 1, "output_format": "json"}
WEBUI: dict[str, Any] = {"steps": 1, "seed": 1, "width": 64, "height": 64, "cfg_scale": 5}
NAMES = ["<cat-toy>", "bad", "bad-hands"]


@pytest.fixture(scope="module")
def runnable(start: Start, tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionRunnable:
    folder = tmp_path_factory.mktemp("embeddings")
    generator = torch.Generator().manual_seed(0)
    for name in NAMES:
        vectors = torch.randn(2, TEXT_WIDTH, generator=generator) * 0.5
        save_file({"emb_params": vectors}, folder / f"{name}.safetensors")
    wide = {"emb_params": torch.zeros(1, TEXT_WIDTH + 1)}
    save_file(wide, folder / "for-another-model.safetensors")
    return start("sd1", embeddings_dir=str(folder))


@pytest.fixture(scope="module")
def client(runnable: StableDiffusionRunnable) -> TestClient:
    return TestClient(Api(runnable).app(), raise_server_exceptions=False)


def drawn(client: TestClient, **body: Any) -> str:
    response = client.post("/txt2img", json={"prompt": "a cat", **SMALL, **body})
    assert response.status_code == 200, response.text
    return str(response.json()["images"][0]["image"])


def test_the_example_of_the_docs(client: TestClient) -> None:
    text = (ROOT / "docs" / "features.md").read_text()
    (body,) = re.findall(r"^curl .* -d '(.*\"embeddings\".*)' --output", text, re.MULTILINE)
    example = json.loads(body)
    assert example["embeddings"]
    with_both = drawn(client, **example)
    assert with_both != drawn(client, **example | {"embeddings": []})
    for name in example["embeddings"]:
        assert with_both != drawn(client, **example | {"embeddings": [name]})
    assert with_both == drawn(client, **example)


def test_names_are_listed(client: TestClient) -> None:
    listed = [one["name"] for one in client.get("/embeddings").json()]
    assert sorted(listed) == sorted([*NAMES, "for-another-model"])
    assert list(client.get("/sdapi/v1/embeddings").json()["loaded"]) == listed


@pytest.mark.parametrize(
    ("embeddings", "status", "field"),
    [
        (["cat-toy"], 404, "embeddings"),
        (["../bad"], 404, "embeddings"),
        (["for-another-model"], 400, "embeddings"),
        (["bad"] * 9, 400, "embeddings"),
        ([""], 400, "embeddings"),
        ([{"name": "bad"}], 400, "embeddings"),
        ("bad", 400, "embeddings"),
    ],
)
def test_bad_input_is_refused_by_name(
    client: TestClient, embeddings: Any, status: int, field: str
) -> None:
    response = client.post("/txt2img", json={"prompt": "x", "embeddings": embeddings})
    assert response.status_code == status, response.text
    assert response.json()["detail"][0]["loc"][0] == field
    if status == 404:
        assert "bad-hands" in response.json()["error"]


def test_they_travel_in_the_images_parameters(client: TestClient) -> None:
    body = {"prompt": "a bad cat", "embeddings": ["bad"], **SMALL}
    told = client.post("/txt2img", json=body).json()["parameters"]
    assert told["embeddings"] == ["bad"]


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"prompt": "a cat", "negative_prompt": "Bad-Hands, dog"}, ["bad-hands"]),
        ({"prompt": "my <cat-toy>", "negative_prompt": "bad"}, ["<cat-toy>", "bad"]),
        ({"prompt": "a (<cat-toy>:1.3) badly", "negative_prompt": "[bad]"}, ["<cat-toy>", "bad"]),
        ({"prompt": "a badge", "negative_prompt": "_bad"}, []),
    ],
)
def test_the_webui_uses_whole_words(
    client: TestClient,
    runnable: StableDiffusionRunnable,
    monkeypatch: pytest.MonkeyPatch,
    prompts: dict[str, str],
    expected: list[str],
) -> None:
    seen: list[TextToImage] = []
    submit = runnable.submit

    def look(parameters: TextToImage, *rest: Any, **options: Any) -> Any:
        seen.append(parameters)
        return submit(parameters, *rest, **options)

    monkeypatch.setattr(runnable, "submit", look)
    response = client.post("/sdapi/v1/txt2img", json={**WEBUI, **prompts})
    assert response.status_code == 200, response.text
    assert base64.b64decode(response.json()["images"][0])
    assert list(seen[0].embeddings) == expected


def test_the_webui_names_the_embedding_that_does_not_fit(client: TestClient) -> None:
    response = client.post("/sdapi/v1/txt2img", json={**WEBUI, "prompt": "a for-another-model"})
    assert response.status_code == 400
    assert "for-another-model" in response.json()["errors"]
