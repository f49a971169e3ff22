"""The calls of clients that are no Python package, as their own code makes them.

Each class follows one client: the same paths, headers, fields and order, and what the client reads
of the answers. Read in November 2026:

- Open WebUI: backend/open_webui/routers/images.py
- SillyTavern: src/endpoints/stable-diffusion.js, and its extension `stable-diffusion`
- LibreChat: api/app/clients/tools/structured/StableDiffusion.js and OpenAIImageTools.js
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.service.server import Server

PROMPT = "a red circle on a blue background"


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def png(size: tuple[int, int] = (96, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (30, 70, 215)).save(buffer, "PNG")
    return buffer.getvalue()


class OpenWebUI:
    """Open WebUI with either engine, and no key configured: it sends an empty header then."""

    def __init__(self, base: str) -> None:
        self.client = httpx.Client(timeout=300)
        self.base = base
        self.automatic = {"authorization": ""}
        self.openai = {"Authorization": "Bearer none"}

    def get_models(self) -> list[dict[str, str]]:
        models = self.client.get(f"{self.base}/sdapi/v1/sd-models", headers=self.automatic).json()
        return [{"id": one["title"], "name": one["model_name"]} for one in models]

    def set_image_model(self, model: str) -> None:
        """It sends the whole object of options back."""
        address = f"{self.base}/sdapi/v1/options"
        options = self.client.get(address, headers=self.automatic).json()
        if options["sd_model_checkpoint"] != model:
            options["sd_model_checkpoint"] = model
            self.client.post(address, json=options, headers=self.automatic).raise_for_status()

    def generate(self, **parameters: object) -> list[bytes]:
        body = {"prompt": PROMPT, "batch_size": 1, "width": 512, "height": 512, **parameters}
        answer = self.client.post(
            f"{self.base}/sdapi/v1/txt2img", json=body, headers=self.automatic
        ).json()
        assert isinstance(answer["info"], str)
        return [self.data(image) for image in answer["images"]]

    def generate_by_openai(self, **parameters: object) -> list[bytes]:
        body = {"model": "dall-e-2", "prompt": PROMPT, "n": 1, **parameters}
        response = self.client.post(
            f"{self.base}/v1/images/generations", json=body, headers=self.openai
        )
        response.raise_for_status()
        return self.images(response.json())

    def edit(self, images: list[bytes], **fields: str) -> list[bytes]:
        """One image goes as `image`, a list as `image[]`; every field is a text part."""
        name = "image" if len(images) == 1 else "image[]"
        body = {"model": "gpt-image-1", "prompt": PROMPT, "response_format": "b64_json", **fields}
        files = [(name, ("a.png", image, "image/png")) for image in images]
        response = self.client.post(
            f"{self.base}/v1/images/edits?api-version=2025-04-01",
            data=body,
            files=files,
            headers=self.openai,
        )
        response.raise_for_status()
        return self.images(response.json())

    def images(self, answer: dict[str, Any]) -> list[bytes]:
        """It prefers an address, which it fetches with its key, and wants an image's type."""
        found = []
        for image in answer["data"]:
            if address := image.get("url"):
                response = self.client.get(address, headers=self.openai)
                response.raise_for_status()
                assert response.headers["content-type"].split("/")[0] == "image"
                found.append(response.content)
            else:
                found.append(self.data(image["b64_json"]))
        return found

    @staticmethod
    def data(text: str) -> bytes:
        return base64.b64decode(text.split(",", 1)[1] if "," in text else text)


@pytest.fixture(scope="module")
def open_webui(server: Server) -> OpenWebUI:
    return OpenWebUI(server.url)


def test_open_webui_by_automatic1111(open_webui: OpenWebUI) -> None:
    (model,) = open_webui.get_models()
    open_webui.set_image_model(model["id"])
    images = open_webui.generate(
        batch_size=2, width=128, height=128, steps=2, negative_prompt="green"
    )
    assert [opened(image).size for image in images] == [(128, 128)] * 2
    (image,) = open_webui.generate(width=64, height=64, steps=1, scheduler="Karras", n_iter=1)
    assert opened(image).format == "PNG"


def test_open_webui_by_openai(open_webui: OpenWebUI) -> None:
    (image,) = open_webui.generate_by_openai(size="256x256", response_format="b64_json")
    assert opened(image).size == (256, 256)
    for model in ("gpt-image-1", "gpt-image-1.5", "dall-e-3"):  # it leaves response_format out
        images = open_webui.generate_by_openai(model=model, n=2, size="64x64")
        assert [opened(image).size for image in images] == [(64, 64)] * 2
    (image,) = open_webui.generate_by_openai(size="64x64", response_format="url", quality="hd")
    assert opened(image).size == (64, 64)


def test_open_webui_edits(open_webui: OpenWebUI) -> None:
    (image,) = open_webui.edit([png()], n="1", size="96x64", background="transparent")
    assert opened(image).size == (96, 64)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        open_webui.edit([png(), png()])
    assert caught.value.response.status_code == 400
    assert caught.value.response.json()["error"]["param"] == "image"


class SillyTavern:
    """SillyTavern's server, which asks for its page."""

    def __init__(self, base: str) -> None:
        self.client = httpx.Client(timeout=300)
        self.base = httpx.URL(base)
        self.headers = {"Authorization": "Basic"}  # of no name and no password

    def get(self, path: str) -> Any:
        response = self.client.get(self.base.join(path), headers=self.headers)
        assert response.is_success, "SD WebUI returned an error."
        return response.json()

    def upscalers(self) -> list[str]:
        """None, then those of latents, then the others."""
        names = [one["name"] for one in self.get("/sdapi/v1/upscalers")]
        latent = [one["name"] for one in self.get("/sdapi/v1/latent-upscale-modes")]
        return [*names[:1], *latent, *names[1:]]

    def vaes(self) -> list[str]:
        """The WebUI's list, or Forge's: whichever answers."""
        forge = self.client.get(self.base.join("/sdapi/v1/sd-modules"), headers=self.headers)
        assert not forge.is_success
        return [one["model_name"] for one in self.get("/sdapi/v1/sd-vae")]

    def set_model(self, model: str) -> None:
        response = self.client.post(
            self.base.join("/sdapi/v1/options"),
            content=json.dumps({"sd_model_checkpoint": model}),
            headers={"Content-Type": "application/json", **self.headers},
        )
        assert response.is_success
        for _ in range(10):
            state = self.get("/sdapi/v1/progress")
            if state["progress"] == 0.0 and state["state"]["job_count"] == 0:
                return
            time.sleep(0.2)
        raise AssertionError("it waits for the model")

    def generate(self, **parameters: object) -> dict[str, Any]:
        """The extension's payload; its server asks for the options first, and adds nothing."""
        assert "forge_preset" not in self.get("/sdapi/v1/options")
        body = {
            "url": str(self.base),
            "auth": "",
            "prompt": PROMPT,
            "negative_prompt": "green",
            "sampler_name": "DDIM",
            "scheduler": "normal",
            "steps": 2,
            "cfg_scale": 7,
            "width": 128,
            "height": 128,
            "restore_faces": False,
            "enable_hr": False,
            "hr_upscaler": "Latent",
            "hr_scale": 1.0,
            "hr_additional_modules": [],
            "denoising_strength": 0.7,
            "hr_second_pass_steps": 0,
            "override_settings": {"CLIP_stop_at_last_layers": 1},
            "override_settings_restore_afterwards": True,
            "clip_skip": 1,
            "save_images": True,
            "send_images": True,
            "do_not_save_grid": False,
            "do_not_save_samples": False,
            **parameters,
        }
        response = self.client.post(
            self.base.join("/sdapi/v1/txt2img"),
            content=json.dumps(body),
            headers={"Content-Type": "application/json", **self.headers},
        )
        assert response.is_success, response.text
        found: dict[str, Any] = response.json()
        return found


@pytest.fixture(scope="module")
def tavern(server: Server) -> SillyTavern:
    return SillyTavern(server.url)


def test_sillytavern_menus(tavern: SillyTavern) -> None:
    models = [one["title"] for one in tavern.get("/sdapi/v1/sd-models")]
    assert models == ["embedded"]
    tavern.set_model(models[0])
    assert tavern.get("/sdapi/v1/options")["sd_model_checkpoint"] == models[0]
    assert "Latent" in tavern.upscalers()
    assert tavern.vaes() == []


def test_sillytavern_generates_with_every_entry_of_its_menus(tavern: SillyTavern) -> None:
    samplers = [one["name"] for one in tavern.get("/sdapi/v1/samplers")]
    schedulers = [one["name"] for one in tavern.get("/sdapi/v1/schedulers")]
    small = {"width": 64, "height": 64, "steps": 2}
    told = []
    for i, sampler in enumerate(samplers):
        answer = tavern.generate(
            sampler_name=sampler, scheduler=schedulers[i % len(schedulers)], seed=i, **small
        )
        told.append(json.loads(answer["info"])["sampler_name"])
    assert told == samplers
    hires = tavern.generate(enable_hr=True, hr_scale=1.5, hr_second_pass_steps=2)
    assert opened(base64.b64decode(hires["images"][0])).size == (192, 192)


def test_sillytavern_interrupts_when_its_page_goes_away(tavern: SillyTavern) -> None:
    answers: list[dict[str, Any]] = []
    long = {"steps": 150}
    generating = threading.Thread(target=lambda: answers.append(tavern.generate(**long)))
    generating.start()
    end = time.monotonic() + 300
    while time.monotonic() < end and not tavern.get("/sdapi/v1/progress")["state"]["job_count"]:
        time.sleep(0.1)
    stopped = tavern.client.post(tavern.base.join("/sdapi/v1/interrupt"), headers=tavern.headers)
    assert stopped.is_success
    generating.join(300)
    assert answers[0]["images"] == []


def test_librechat_stable_diffusion(server: Server) -> None:
    """It always asks for 1024x1024 and 22 steps; here with fewer steps, to be quick."""
    body = {"prompt": PROMPT, "negative_prompt": "green", "cfg_scale": 4.5, "steps": 1}
    body |= {"width": 1024, "height": 1024}
    answer = httpx.post(f"{server.url}/sdapi/v1/txt2img", json=body, timeout=300).json()
    image = opened(base64.b64decode(answer["images"][0].split(",", 1)[0]))
    info = json.loads(answer["info"])
    assert image.size == (info["width"], info["height"]) == (1024, 1024)
    assert f"Seed: {info['seed']}" in info["infotexts"][0].split("\n").pop()


@pytest.mark.parametrize("background", ["auto", "transparent"])
def test_librechat_image_generation(server: Server, background: str) -> None:
    body = {
        "model": "gpt-image-1",
        "prompt": PROMPT,
        "n": 10,
        "background": background,
        "output_format": "webp",
        "output_compression": 100,
        "quality": "auto",
        "size": "auto",
    }
    response = httpx.post(
        f"{server.url}/v1/images/generations",
        json={**body, "num_inference_steps": 2},
        headers={"Authorization": "Bearer none"},
        timeout=300,
    )
    assert response.status_code == 200
    images = response.json()["data"]
    assert [opened(base64.b64decode(one["b64_json"])).format for one in images] == ["WEBP"] * 10


def test_librechat_image_edit(server: Server) -> None:
    """It sends `image[]` even for one image."""
    response = httpx.post(
        f"{server.url}/v1/images/edits",
        data={"model": "gpt-image-1", "prompt": PROMPT, "quality": "auto", "size": "auto"},
        files=[("image[]", ("a.png", png(), "image/png"))],
        headers={"Authorization": "Bearer none"},
        timeout=300,
    )
    assert response.status_code == 200
    assert opened(base64.b64decode(response.json()["data"][0]["b64_json"])).size[0] > 64
