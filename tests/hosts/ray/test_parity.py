"""What comes over HTTP from a replica equals diffusers' own image within 2 of 255."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from runnables.parameters import TextToImage
from runnables.settings import EMBEDDED_MODEL
from tests.runnables.engine import reference
from tests.service.server import Server

ASKED = [
    {"scheduler": "ddim", "num_inference_steps": 3, "guidance_scale": 4.0},
    {"scheduler": "euler_a", "num_inference_steps": 5, "guidance_scale": 1.0},
    {"scheduler": "dpmpp_2m", "num_inference_steps": 4, "guidance_scale": 7.5},
]


def test_images_of_a_mixed_load_equal_diffusers(server: Server) -> None:
    bodies = [
        {"prompt": "a red circle", "seed": seed, "height": 128, "width": 128, **asked}
        for seed, asked in enumerate(ASKED)
    ]

    def draw(body: dict[str, object]) -> np.ndarray:
        sent = {**body, "output_format": "png"}
        response = httpx.post(f"{server.url}/txt2img", json=sent, timeout=300)
        assert response.status_code == 200, response.text
        return np.asarray(Image.open(io.BytesIO(response.content))).astype(int)

    with ThreadPoolExecutor(len(bodies)) as clients:
        drawn = list(clients.map(draw, bodies))
    for body, pixels in zip(bodies, drawn, strict=True):
        expected = reference.generate(Path(EMBEDDED_MODEL), TextToImage(**body))  # type: ignore[arg-type]
        assert np.abs(pixels - expected).max() <= 2, body
