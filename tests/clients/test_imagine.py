"""`GET /imagine`, as the Ray Serve blueprint's Gradio app calls it: requests, then PIL."""

from __future__ import annotations

import io

import pytest
import requests
from PIL import Image

from tests.service.server import Server


def test_the_blueprints_call(server: Server) -> None:
    prompt = "%20".join(["a", "red", "circle", "on", "a", "blue", "background"])
    response = requests.get(f"{server.url}/imagine?prompt={prompt}", timeout=300)
    assert response.status_code == 200
    assert Image.open(io.BytesIO(response.content)).format == "PNG"


def test_sizes_and_our_own_parameters(server: Server) -> None:
    query = {"prompt": "sea", "img_size": 64, "num_inference_steps": 2, "seed": 7}
    response = requests.get(f"{server.url}/imagine", params=query, timeout=300)
    assert Image.open(io.BytesIO(response.content)).size == (64, 64)
    assert response.headers["seed"] == "7"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "prompt"),
        ("prompt=x&img_size=9", "height"),
        ("prompt=x&sead=1", "sead"),
        ("prompt=x&prompt=y", "prompt"),
        ("prompt=x&num_images_per_prompt=2", "num_images_per_prompt"),
    ],
)
def test_bad_input(server: Server, query: str, field: str) -> None:
    response = requests.get(f"{server.url}/imagine?{query}", timeout=300)
    assert response.status_code == 400
    assert response.json()["detail"][0]["loc"] == [field]
