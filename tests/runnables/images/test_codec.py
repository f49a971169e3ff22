"""Uploads are decoded and files encoded as their formats say."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

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


#: a rotation, and a width that is a text: Pillow rotates, and cannot write the width again
WIDTH_IS_TEXT = b"Exif\0\0II*\0" + struct.pack(
    "<IHHHI4sHHIII", 8, 2, 0x100, 2, 4, b"abc", 0x112, 3, 1, 6, 0
)
#: a rotation, and a description that is a fraction, or a resolution that is a text
DESCRIPTION_IS_FRACTION, RESOLUTION_IS_TEXT = (
    b"Exif\0\0II*\0" + struct.pack("<IHHHI4sHHIII", 8, 2, tag, kind, 1, b"\1", 0x112, 3, 1, 6, 0)
    for tag, kind in ((0x10E, 5), (0x11A, 2))
)


@pytest.mark.parametrize(
    "exif",
    [b"II*\0", b"Exif\0\0II*\0", WIDTH_IS_TEXT, DESCRIPTION_IS_FRACTION, RESOLUTION_IS_TEXT],
)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_that_is_no_exif(photo: Image.Image, kind: str, exif: bytes) -> None:
    buffer = io.BytesIO()
    photo.save(buffer, kind, exif=exif)
    with contextlib.suppress(UnsupportedImage):
        read(buffer.getvalue())
    with contextlib.suppress(UnsupportedImage):
        codec.read_texts(buffer.getvalue(), max_pixels=10**6, field="image")


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
def test_prompts_too_long_for_exif_are_reported_once(kind: codec.Format) -> None:
    long = {**PARAMETERS, "prompt": "\u65e5" * 4000, "negative_prompt": "\U0001f600" * 4000}
    exif = Image.open(io.BytesIO(codec.encode(Image.new("RGB", (8, 8)), kind, long))).getexif()
    text = exif.get_ifd(0x8769)[0x9286][8:].decode("utf-16-be")
    assert text == infotext.write(long)
    assert 0x010E not in exif


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_no_metadata_when_none_is_given(kind: codec.Format) -> None:
    back = Image.open(io.BytesIO(codec.encode(Image.new("RGB", (8, 8)), kind)))
    assert not dict(back.getexif())


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_tiff_in_either_byte_order(order: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(order).reshape(16, 16)
    mode = "I;16B" if order == ">u2" else "I;16"
    data = file(Image.frombytes(mode, (16, 16), ramp.tobytes()), "TIFF")
    grey = np.asarray(read(data))[..., 0].astype(int)
    assert np.abs(grey.ravel() - np.arange(256)).max() <= 1


@pytest.mark.parametrize(("mode", "word"), [("F", "fractions"), ("I", "whole numbers")])
def test_number_formats_without_a_range_are_refused_by_name(mode: str, word: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"{word} of 32 bits"):
        read(file(Image.new(mode, (8, 8)), "TIFF"))


def strokes() -> Image.Image:
    """Return white strokes on transparent white, as an editor's layer."""
    layer = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    layer.paste((255, 255, 255, 255), (5, 5, 10, 10))
    return layer


def mask(image: Image.Image, **options: bool) -> np.ndarray:
    return np.asarray(codec.decode_mask(file(image), max_pixels=10_000, **options))


def test_what_is_transparent_in_a_mask_is_black() -> None:
    found = mask(strokes())
    assert found[7, 7] == 255 and found.sum() == 255 * 25


def test_alpha_is_the_mask_where_any_pixel_is_transparent() -> None:
    black = strokes()
    black.paste((0, 0, 0, 255), (5, 5, 10, 10))
    for layer in (strokes(), black):
        found = mask(layer, alpha=True)
        assert found[7, 7] == 255 and found.sum() == 255 * 25
    opaque = Image.new("RGBA", (20, 20), "black")
    opaque.paste("white", (5, 5, 10, 10))
    assert mask(opaque, alpha=True).sum() == 255 * 25
    palette = opaque.convert("RGB").convert("P")
    assert mask(palette, alpha=True).sum() == 255 * 25


def test_base64_with_line_breaks_and_a_head() -> None:
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    broken = "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    headed = f"data:image/png;base64,{broken}"
    for one in (text, broken, headed, f"\n{headed}", text.rstrip("="), f" {text}\n"):
        assert codec.from_base64(one, "img") == data


@pytest.mark.parametrize("text", ["%%%", "a", "aGk=aGk=", "aGk\u00e9", "data:image/png;base64"])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(UnsupportedImage) as caught:
        codec.from_base64(text, "img")
    assert caught.value.loc == ("img",)


def test_scans_of_a_progressive_jpeg_are_bounded() -> None:
    usual = file(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    assert read(usual).size == (64, 64)
    start = usual.index(codec.SCAN)
    scan = usual[start : usual.index(codec.SCAN, start + 2)]
    with pytest.raises(PayloadTooLarge, match="scans"):
        read(usual[:-2] + scan * 200 + usual[-2:])


def test_exactly_as_many_pixels_as_allowed() -> None:
    data = file(Image.new("RGB", (40, 25)))
    assert codec.decode(data, max_pixels=1000, field="img").size == (40, 25)
    with pytest.raises(PayloadTooLarge):
        codec.decode(data, max_pixels=999, field="img")


def test_no_side_may_be_too_long() -> None:
    data = file(Image.new("1", (1, codec.MAX_SIDE + 1)))
    with pytest.raises(PayloadTooLarge, match="no side"):
        codec.decode(data, max_pixels=10**6, field="img")


def test_texts_of_a_png_are_bounded() -> None:
    chunks = PngImagePlugin.PngInfo()
    for i in range(8):
        chunks.add_text(f"t{i}", "x" * 1_000_000, zip=True)
    with pytest.raises(UnsupportedImage):
        codec.read_texts(file(Image.new("L", (8, 8)), pnginfo=chunks), max_pixels=100, field="img")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_the_longest_prompts_leave_room_for_the_image(kind: codec.Format) -> None:
    """What does not fit into EXIF is left out; a PNG has it all."""
    long = {**PARAMETERS, "prompt": "\U0001f600" * 32_000, "negative_prompt": "\u65e5" * 32_000}
    texts = codec.read_texts(
        codec.encode(Image.new("RGB", (8, 8)), kind, long), max_pixels=64, field="img"
    )
    if kind == "png":
        assert json.loads(texts[codec.JSON_TEXT]) == long
        assert infotext.parse(texts[codec.WEBUI_TEXT])["Prompt"] == long["prompt"]
    else:
        assert texts == {}
