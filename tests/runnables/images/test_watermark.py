"""The watermark: too small to see, found after JPEG and another size, and in nothing else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from runnables.images import watermark

KEY = "a key of ours"


def noise(seed: int, size: tuple[int, int] = (512, 512)) -> Image.Image:
    """A picture with the spectrum of photographs: shorter waves are weaker."""
    width, height = size
    rng = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    weaker = 1 / np.maximum(np.hypot(down, across), 1 / max(size))
    layers = []
    for _ in range(3):
        waves = np.fft.fft2(rng.standard_normal((height, width))) * weaker
        layer = np.fft.ifft2(waves).real
        layers.append(128 + 50 * layer / layer.std())
    return Image.fromarray(np.clip(np.stack(layers, -1), 0, 255).astype(np.uint8))


PICTURES = {
    "photograph": noise(1),
    "wide": noise(2, (768, 512)),
    "grey": Image.new("RGB", (512, 512), "grey"),
    "white": Image.new("RGB", (512, 512), "white"),
    "large": noise(3, (1024, 1024)),
}


def as_jpeg(image: Image.Image, quality: int = 80) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize("name", PICTURES)
def test_it_is_small_and_survives(name: str) -> None:
    image = PICTURES[name]
    marked = watermark.mark(image, KEY)
    change = np.abs(np.asarray(marked).astype(int) - np.asarray(image))
    assert change.max() <= 3 and change.mean() <= 1
    smaller = marked.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)
    for seen in (marked, as_jpeg(marked), smaller, as_jpeg(smaller)):
        assert watermark.score(seen, KEY) > watermark.FOUND
        assert abs(watermark.score(seen, "another key")) < watermark.FOUND
    assert watermark.score(image, KEY) < watermark.FOUND


def test_an_image_without_any_structure_says_nothing() -> None:
    assert watermark.score(Image.new("RGB", (300, 200), "red"), KEY) == 0


@pytest.mark.parametrize("size", [(2, 3), (8, 300), (64, 64)])
def test_small_images_stay_as_they_are_nearly(size: tuple[int, int]) -> None:
    image = noise(4, size)
    change = np.asarray(watermark.mark(image, KEY)).astype(int) - np.asarray(image)
    assert np.abs(change).max() <= 3
