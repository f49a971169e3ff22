"""Parameters from images that the service drew, and from a WebUI's."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from runnables.images import codec
from ui import recall
from ui.client import ServiceError

DRAWN = {
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


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_an_image_of_the_service_tells_everything(tmp_path: Path, kind: codec.Format) -> None:
    path = tmp_path / f"image.{kind}"
    path.write_bytes(codec.encode(Image.new("RGB", (64, 32)), kind, DRAWN))
    assert recall.read(path) == DRAWN


def test_the_webuis_text_alone_tells_as_much(tmp_path: Path) -> None:
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("parameters", codec.describe(DRAWN))
    Image.new("RGB", (64, 32)).save(tmp_path / "image.png", pnginfo=chunk)
    assert recall.read(tmp_path / "image.png") == DRAWN


def test_a_webuis_own_text() -> None:
    text = (
        "a castle\nSteps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6, Seed: 7, Size: 512x768, "
        'Model hash: abc, Hashes: "a: b, c: d", Denoising strength: lots, Version: v1.9'
    )
    assert recall.from_webui(text) == {
        "prompt": "a castle",
        "negative_prompt": "",
        "num_inference_steps": 28,
        "scheduler": "DPM++ 2M Karras",
        "guidance_scale": 6.0,
        "seed": 7,
        "width": 512,
        "height": 768,
    }


@pytest.mark.parametrize("content", [b"", b"no image", codec.encode(Image.new("L", (8, 8)), "png")])
def test_what_carries_nothing_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.png").write_bytes(content)
    with pytest.raises(ServiceError) as caught:
        recall.read(tmp_path / "file.png")
    assert caught.value.field == "file"
