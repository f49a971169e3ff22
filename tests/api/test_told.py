"""What is told about an image generates the same image again.

Random requests of the WebUI's API and of our own endpoints are generated again from the infotext in
the answer, from the PNG, and from a JPEG's EXIF. (tests/ui drops images onto the page.) `LONG=1`
tries 200; the largest difference is printed.
"""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.app import Api
from api.webui import samplers
from api.webui.restore import FIELDS
from runnables.images import infotext
from runnables.runnable import StableDiffusionRunnable
from runnables.samplers import names
from tests.long import LONG
from tests.runnables.extensions.test_lora import write

REQUESTS = 200 if LONG else 12
MOST = 2  # of 255
PROMPTS = (
    "a cat",
    "a (red:1.4) cat, ((dog)) [bird]",
    r"a \(red\) cat, C++ and D--",
    "a cat\nSteps: 3, Seed: 4\nNegative prompt: none",
    'quoted "words", commas, colons: all of them',
    "a cat (without end [and <no tag> a.b",
    "   spaces around   ",
    "ein Kätzchen, 猫 😀",
    "",
)
Pixels = Any


class Service:
    """A client of one service, which remembers what it generated from the same parameters."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self._seen: dict[str, Pixels] = {}

    def post(self, path: str, body: dict[str, Any]) -> Any:
        response = self.client.post(path, json=body)
        assert response.status_code == 200, (path, body, response.text)
        return response

    def native(self, parameters: dict[str, Any]) -> Pixels:
        key = json.dumps(parameters, sort_keys=True)
        if key not in self._seen:
            sent = {**parameters, "output_format": "png"}
            self._seen[key] = pixels(self.post("/txt2img", sent).content)
        return self._seen[key]

    def webui(self, body: dict[str, Any]) -> tuple[bytes, str]:
        """Return the first PNG, and its infotext."""
        answer = self.post("/sdapi/v1/txt2img", body).json()
        return base64.b64decode(answer["images"][0]), json.loads(answer["info"])["infotexts"][0]

    def parameters_in(self, file: bytes) -> dict[str, Any]:
        body = {"image": base64.b64encode(file).decode()}
        found: dict[str, Any] = self.post("/sdapi/v1/png-info", body).json()["native"]
        return found


@pytest.fixture(scope="module")
def service(
    start: Callable[..., StableDiffusionRunnable],
    tiny_model: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Service:
    folder = tmp_path_factory.mktemp("loras")
    write(folder, "ink", tiny_model("sd1"))
    return Service(TestClient(Api(start("sd1", lora_dir=str(folder))).app()))


def pixels(file: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)


def from_webui(some: random.Random) -> dict[str, Any]:
    """A body as the WebUI's clients write it."""
    sampler = some.choice(samplers.sampler_list())["name"]
    body = {
        "prompt": some.choice(PROMPTS),
        "negative_prompt": some.choice(PROMPTS),
        "seed": some.randrange(2**53),
        "steps": some.randint(2, 4),
        "cfg_scale": some.choice([1, 4.5, 7, 12.25]),
        "width": some.choice([64, 72, 90]),
        "height": some.choice([64, 56]),
        "sampler_name": sampler,
        "scheduler": some.choice(samplers.schedule_list())["label"],
        "override_settings": {"CLIP_stop_at_last_layers": some.choice([1, 2])},
    }
    if some.random() < 0.25:
        body["prompt"] = f"{body['prompt']} <lora:ink:{some.choice([0.8, 1, '0.5:1.25'])}>"
    if some.random() < 0.2:
        body |= {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.6}
        body["hr_second_pass_steps"] = some.choice([0, 3])
    return body


def from_native(some: random.Random) -> dict[str, Any]:
    """A body of our own endpoint."""
    body: dict[str, Any] = {
        "prompt": some.choice(PROMPTS) or "a dog",
        "negative_prompt": some.choice(PROMPTS),
        "seed": some.randrange(2**53),
        "num_inference_steps": some.randint(2, 4),
        "guidance_scale": some.choice([0.5, 1, 4.5, 7.125]),
        "width": some.choice([64, 72]),
        "height": some.choice([64, 56]),
        "scheduler": some.choice(
            [one.name for one in names.samplers().values() if one.fits("epsilon")]
        ),
        "clip_skip": some.choice([0, 1]),
        "prompt_syntax": some.choice(["plain", "plain", "webui"]),
    }
    if some.random() < 0.25:
        body["loras"] = [{"name": "ink", "weight": some.choice([0.8, -0.123456789])}]
    if some.random() < 0.2:
        body["hires"] = {"scale": 1.5, "strength": some.choice([0.5, 0.7])}
    return body


def as_webui(text: str) -> dict[str, Any]:
    """A body for an infotext, field by field, as a WebUI that pastes it."""
    found = infotext.parse(text)
    body: dict[str, Any] = {field: found[name] for field, name in FIELDS.items() if name in found}
    body["enable_hr"] = "Hires upscale" in found
    skip = int(found.get("Clip skip", 1))
    return {**body, "override_settings": {"CLIP_stop_at_last_layers": skip}}


def jpeg_of(service: Service, parameters: dict[str, Any]) -> bytes:
    content: bytes = service.post("/txt2img", {**parameters, "output_format": "jpeg"}).content
    return content


def largest(service: Service, some: random.Random, webui: bool) -> dict[str, int]:
    """Return the largest difference by what told of the image."""
    if webui:
        body = from_webui(some)
        png, text = service.webui(body)
    else:
        body = from_native(some)
        png = service.post("/txt2img", {**body, "output_format": "png"}).content
        text = str(Image.open(io.BytesIO(png)).info["parameters"])
    told = service.parameters_in(png)
    again = {"infotext": pixels(service.webui(as_webui(text))[0])}
    exact = {**told, "prompt": told["prompt"] or " "}  # our own endpoints want a prompt
    again["png"] = service.native(exact)
    again["exif"] = service.native(service.parameters_in(jpeg_of(service, exact)))
    first = pixels(png)
    return {name: int(np.abs(first - other).max()) for name, other in again.items()}


def test_what_is_told_generates_the_same(service: Service) -> None:
    worst = dict.fromkeys(("infotext", "png", "exif"), 0)
    for number in range(REQUESTS):
        found = largest(service, random.Random(number), webui=number % 2 == 0)
        for name, difference in found.items():
            assert difference <= MOST, (number, found)
            worst[name] = max(worst[name], difference)
    print(f"{REQUESTS} requests generated again; largest differences of 255: {worst}")
