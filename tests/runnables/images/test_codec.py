"""Uploads and files."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from runnables.errors import PayloadTooLarge, UnsupportedImage
from runnables.images import codec, infotext

PARAMETERS = {
    "prompt": "a cat, \u00e9t\u00e9",
    "negative_prompt": "dog",
    "num_inference_steps": 4,
    "scheduler": "euler",
    "guidance_scale": 7.5,
    "seed": 2**53 - 1,
    "width": 64,
    "height": 32,
}


def file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes) -> Image.Image:
    return codec.decode(data, max_pixels=10_000, field="img")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = "TIFF" if mode in ("CMYK", "I;16") else "PNG"
    assert read(file(Image.new(mode, (8, 6)), kind)).mode == "RGB"


def test_16_bit_grey_keeps_its_tones() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    grey = np.asarray(read(file(Image.fromarray(ramp))))[..., 0].astype(int)
    assert np.abs(grey.ravel() - np.arange(256)).max() <= 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_are_refused_or_read(photo: Image.Image) -> None:
    """Any other exception than ours would end as a 500."""
    chance = np.random.default_rng(0)
    for kind in codec.READABLE:
        whole = np.frombuffer(file(photo, kind), np.uint8)
        for _ in range(100):
            damaged = whole.copy()
            damaged[chance.integers(0, min(whole.size, 400), 4)] = chance.integers(0, 256, 4)
            with contextlib.suppress(UnsupportedImage, PayloadTooLarge):
                assert read(damaged.tobytes()).mode == "RGB"


def test_transparency_lies_on_white() -> None:
    assert read(file(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))).getpixel((0, 0)) == (255,) * 3


def test_rotation_in_exif_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read(file(Image.new("RGB", (10, 20)), "JPEG", exif=exif)).size == (20, 10)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read(data).getpixel((0, 0)) == (255, 0, 0)


def test_pixels_are_counted_before_decoding() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        read(file(Image.new("RGB", (101, 100))))
    assert caught.value.loc == ("img",)


@pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4"])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(UnsupportedImage):
        read(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_cut_off_files(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    data = file(Image.fromarray(noise), kind)
    with pytest.raises(UnsupportedImage):
        read(data[: len(data) // 2])


def test_png_is_lossless_and_carries_parameters() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (32, 64, 3), dtype=np.uint8)
    back = Image.open(io.BytesIO(codec.encode(Image.fromarray(noise), "png", PARAMETERS)))
    assert (np.asarray(back) == noise).all()
    assert json.loads(back.text["sd-parameters"]) == PARAMETERS
    assert back.text["parameters"] == infotext.write(PARAMETERS)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_prompts_too_long_for_exif_are_told_once(kind: codec.Format) -> None:
    long = {**PARAMETERS, "prompt": "\u65e5" * 4000, "negative_prompt": "\U0001f600" * 4000}
    exif = Image.open(io.BytesIO(codec.encode(Image.new("RGB", (8, 8)), kind, long))).getexif()
    text = exif.get_ifd(0x8769)[0x9286][8:].decode("utf-16-be")
    assert text == infotext.write(long)
    assert 0x010E not in exif


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_no_metadata_when_none_is_given(kind: codec.Format) -> None:
    back = Image.open(io.BytesIO(codec.encode(Image.new("RGB", (8, 8)), kind)))
    assert not dict(back.getexif())
