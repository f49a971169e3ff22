"""Parameters from images that the service made, and from a WebUI's."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from starlette.testclient import TestClient

from api.app import Api
from api.webui import samplers
from runnables.images import codec, infotext
from runnables.runnable import StableDiffusionRunnable
from runnables.samplers import names
from tests.runnables.extensions.test_lora import write

MADE = {
    "prompt": "a cat, Steps: 3\nin two lines",
    "negative_prompt": "dogs, rain",
    "num_inference_steps": 20,
    "scheduler": "ddim",
    "guidance_scale": 7.5,
    "seed": 2**53 - 1,
    "width": 64,
    "height": 32,
    "strength": 0.4,
}


@pytest.fixture(scope="module")
def client(
    start: Callable[..., StableDiffusionRunnable],
    tiny_model: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> TestClient:
    folder = tmp_path_factory.mktemp("loras")
    write(folder, "ink", tiny_model("sd1"))
    return TestClient(Api(start("sd1", lora_dir=str(folder))).app())


def info(client: TestClient, file: bytes) -> dict[str, Any]:
    body = {"image": base64.b64encode(file).decode()}
    response = client.post("/sdapi/v1/png-info", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def with_text(text: str) -> bytes:
    chunk, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    chunk.add_text("parameters", text)
    Image.new("RGB", (64, 32)).save(buffer, "PNG", pnginfo=chunk)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_our_own_image_has_everything(client: TestClient, kind: codec.Format) -> None:
    file = codec.encode(Image.new("RGB", (64, 32)), kind, MADE)
    assert info(client, file)["native"] == MADE


def test_a_webuis_image_is_translated(client: TestClient) -> None:
    found = info(
        client,
        with_text(
            "a (red:1.4) cat\nNegative prompt: dogs\nSteps: 28, Sampler: DPM++ 2M Karras, "
            "CFG scale: 6, Seed: 7, Size: 512x768, Clip skip: 2, Model hash: abc, Version: v1.9"
        ),
    )
    assert found["parameters"]["CFG scale"] == "6"
    assert found["native"] == {
        "prompt": "a (red:1.4) cat",
        "negative_prompt": "dogs",
        "prompt_syntax": "webui",
        "num_inference_steps": 28,
        "scheduler": "dpmpp_2m_karras",
        "guidance_scale": 6.0,
        "seed": 7,
        "width": 512,
        "height": 768,
        "clip_skip": 1,
    }


def test_what_cannot_be_had_is_left_out(client: TestClient) -> None:
    text = "a cat\nSteps: 4, Sampler: Nonesuch, Seed: 7, Denoising strength: lots"
    expected = {"prompt": "a cat", "num_inference_steps": 4, "seed": 7, "strength": 0.75}
    assert info(client, with_text(text))["native"] == expected


def test_an_image_without_parameters(client: TestClient) -> None:
    found = info(client, codec.encode(Image.new("L", (8, 8)), "png"))
    assert found == {"info": "", "items": {}, "parameters": {}, "native": None}


def test_a_text_of_ours_that_is_damaged(client: TestClient) -> None:
    """The last three are JSON for Python's reader, and nothing that an answer could repeat."""
    deep = '{"prompt": "a", "x": %s}' % ("[" * 980 + "]" * 980)
    unfit = ['{"prompt": "a", "guidance_scale": NaN}', r'{"prompt": "\ud800"}', deep]
    for text in ("[" * 100_000, "{", "[]", "{}", *unfit):
        chunk, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
        chunk.add_text(codec.JSON_TEXT, text)
        Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=chunk)
        assert info(client, buffer.getvalue())["native"] is None


def test_a_value_that_is_no_text_stays_as_it_was_written(client: TestClient) -> None:
    found = info(client, with_text('a\nSteps: 4, Model: "\\ud800,", Size: 64x64'))
    assert found["parameters"]["Model"] == r'"\ud800,"'


@pytest.mark.parametrize("name", sorted(names.samplers()))
def test_every_sampler_is_found_again(name: str) -> None:
    written = infotext.parse(infotext.write({**MADE, "scheduler": name}))
    prediction = "epsilon" if names.samplers()[name].fits("epsilon") else "flow"
    schedule = written["Schedule type"]
    assert samplers.resolve(written["Sampler"], schedule, prediction=prediction).name == name


def test_what_is_generated_again_is_the_same_image(client: TestClient) -> None:
    body = {
        "prompt": "a (red:1.4) [circle] in C++ <lora:ink:0.8>",
        "negative_prompt": r"(dog) \(x\)",
        "sampler_name": "DPM++ 2M",
        "scheduler": "Karras",
        "override_settings": {"CLIP_stop_at_last_layers": 2},
        "steps": 3,
        "cfg_scale": 6.5,
        "seed": 7,
        "width": 64,
        "height": 72,
    }
    first = client.post("/sdapi/v1/txt2img", json=body)
    assert first.status_code == 200, first.text
    file = base64.b64decode(first.json()["images"][0])
    text = info(client, file)["info"]
    assert text == json.loads(first.json()["info"])["infotexts"][0]
    for carried in (file, with_text(text)):  # by our own JSON, and by the WebUI's text alone
        native = {**info(client, carried)["native"], "output_format": "png"}
        again = client.post("/txt2img", json=native)
        assert again.status_code == 200, again.text
        assert pixels(again.content) == pixels(file)


def pixels(file: bytes) -> bytes:
    return Image.open(io.BytesIO(file)).tobytes()
