"""Uploads become RGB images, and images become PNG, JPEG or WebP with their parameters inside.

What an upload costs is bounded before it is decoded: by its header's number of pixels, its longest
side, the scans of a progressive JPEG, and the texts of a PNG.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from runnables.errors import PayloadTooLarge, StableDiffusionError, UnsupportedImage
from runnables.images import infotext

Format = Literal["png", "jpeg", "webp"]

#: what an upload may be; Pillow's other readers are not used
READABLE = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_SIDE = 16_384
MAX_SCANS = 100  # of a progressive JPEG: each costs as much as a whole image; usual are 10
SCAN = b"\xff\xda"
PngImagePlugin.MAX_TEXT_MEMORY = 4 * 1024 * 1024  # bytes of a PNG's texts, unpacked
QUALITY = 95
#: zlib's fastest level: at 1024x1024 the default takes 5 times as long for 5% fewer bytes
PNG_LEVEL = 1
#: what a JPEG's marker holds of EXIF, in bytes
MAX_EXIF = 65_533
EXIF_DESCRIPTION, EXIF_USER_COMMENT, EXIF_IFD = 0x010E, 0x9286, 0x8769
#: the texts of a PNG that carry its parameters: in the WebUI's form, and as our JSON
WEBUI_TEXT, JSON_TEXT = "parameters", "sd-parameters"


def from_base64(text: str, field: str) -> bytes:
    """Return the content of base64, with or without line breaks and a data URL's head.

    Raises:
        UnsupportedImage: The text is not base64.
    """
    text = text.lstrip()
    if text[:5].lower() == "data:":
        text = text[text.find(",") + 1 :]
    try:
        packed = text.encode("ascii").translate(None, b" \t\r\n")
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnsupportedImage(f"{field} is not base64", loc=(field,)) from error


def decode(data: bytes, *, max_pixels: int, field: str) -> Image.Image:
    """Return an upload as RGB: upright, the first frame, transparency on white, 16-bit as 8-bit.

    Raises:
        UnsupportedImage: It is not an image, of a kind that is not read, or cut off.
        PayloadTooLarge: It is too large; that is found from the header, before decoding.
    """
    image = _open(data, max_pixels, field)
    with _decoding(field):
        return _flatten(ImageOps.exif_transpose(image), "white", field)


def decode_mask(data: bytes, *, max_pixels: int, alpha: bool = False) -> Image.Image:
    """Return a mask as 8-bit grey; white is repainted, and what is transparent is black.

    Args:
        alpha: Whether, as in the WebUI, an image in which any pixel is transparent is a mask by its
            alpha: what is opaque is repainted, whatever its colour.

    Raises:
        UnsupportedImage, PayloadTooLarge: As `decode`.
    """
    image = _open(data, max_pixels, "mask")
    with _decoding("mask"):
        image = ImageOps.exif_transpose(image)
        if alpha and image.has_transparency_data:
            opaque = image.convert("RGBA").getchannel("A")
            if opaque.getextrema() != (255, 255):
                return opaque.point(lambda value: 255 if value > 128 else 0)
        return _flatten(image, "black", "mask").convert("L")


def decode_transparency(data: bytes, *, max_pixels: int, field: str) -> Image.Image | None:
    """Return how transparent an upload is, as 8-bit grey: 255 where its alpha is 0, or None.

    As a mask it means what OpenAI's API means: what is transparent is repainted.

    Raises:
        UnsupportedImage, PayloadTooLarge: As `decode`.
    """
    image = _open(data, max_pixels, field)
    if not image.has_transparency_data:
        return None
    with _decoding(field):
        return ImageOps.invert(ImageOps.exif_transpose(image).convert("RGBA").getchannel("A"))


def read_texts(data: bytes, *, max_pixels: int, field: str) -> dict[str, str]:
    """Return the texts in an image's file; those of JPEG and WebP by the names they have in PNG.

    Raises:
        UnsupportedImage, PayloadTooLarge: As `decode`.
    """
    image = _open(data, max_pixels, field)
    with _decoding(field):
        image.load()  # a PNG's texts may stand behind its pixels
        exif = image.getexif()
        comment = exif.get_ifd(EXIF_IFD).get(EXIF_USER_COMMENT, b"")
    found = {WEBUI_TEXT: _comment(comment), JSON_TEXT: str(exif.get(EXIF_DESCRIPTION, ""))}
    chunks = {key: str(value) for key, value in getattr(image, "text", {}).items()}
    return {**{name: text for name, text in found.items() if text}, **chunks}


def encode(
    image: Image.Image, format: Format, parameters: Mapping[str, Any] | None = None
) -> bytes:
    """Return the image's file, with `parameters` in a text chunk (PNG) or in EXIF (JPEG, WebP).

    EXIF holds 64 KB: of long prompts it has the WebUI's form only, and of the longest neither.
    """
    buffer = io.BytesIO()
    if format == "png":
        image.save(buffer, "PNG", compress_level=PNG_LEVEL, pnginfo=_chunks(parameters))
    else:
        options: dict[str, Any] = {"exif": _exif(parameters)} if parameters else {}
        image.save(buffer, format.upper(), quality=QUALITY, **options)
    return buffer.getvalue()


def check_size(size: tuple[int, int], max_pixels: int, field: str) -> None:
    """Raise PayloadTooLarge for an image of too many pixels, or too long a side."""
    width, height = size
    if width * height > max_pixels:
        raise PayloadTooLarge(
            f"{field} is {width}x{height}, over the limit of {max_pixels} pixels", loc=(field,)
        )
    if max(size) > MAX_SIDE:
        raise PayloadTooLarge(
            f"{field} is {width}x{height}, and no side may be over {MAX_SIDE}", loc=(field,)
        )


def _open(data: bytes, max_pixels: int, field: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=READABLE)
    except Image.DecompressionBombError as error:
        raise PayloadTooLarge(f"{field} has too many pixels", loc=(field,)) from error
    except Exception as error:
        raise UnsupportedImage(
            f"{field} is not an image that can be read ({', '.join(READABLE)})", loc=(field,)
        ) from error
    check_size(image.size, max_pixels, field)
    if image.format in ("JPEG", "MPO") and data.count(SCAN) > MAX_SCANS:
        raise PayloadTooLarge(f"{field} has more than {MAX_SCANS} scans", loc=(field,))
    return image


@contextmanager
def _decoding(field: str) -> Iterator[None]:
    """Turn whatever Pillow raises of a damaged file into UnsupportedImage."""
    try:
        yield
    except StableDiffusionError:
        raise
    except Exception as error:
        raise UnsupportedImage(
            f"{field} cannot be decoded; is it cut off? ({error})", loc=(field,)
        ) from error


def _comment(exif: object) -> str:
    """Return EXIF's user comment, whose first eight bytes name its encoding."""
    if not isinstance(exif, bytes):
        return str(exif)
    kind, text = exif[:8], exif[8:]
    coding = "utf-16-be" if kind == b"UNICODE\0" else "utf-8"
    return text.decode(coding, errors="replace").rstrip("\0")


def _flatten(image: Image.Image, ground: str, field: str) -> Image.Image:
    """Return an image as RGB, with a colour behind what is transparent."""
    if image.mode.startswith("I;16"):  # Pillow would clip: everything over 255 turns white
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "fractions" if image.mode == "F" else "whole numbers"
        raise UnsupportedImage(
            f"{field} has {kind} of 32 bits, whose range is unknown: send 8 or 16 bits per channel",
            loc=(field,),
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, ground), layer).convert("RGB")
    return image.convert("RGB")


def _chunks(parameters: Mapping[str, Any] | None) -> PngImagePlugin.PngInfo | None:
    if not parameters:
        return None
    chunks = PngImagePlugin.PngInfo()
    text = infotext.write(parameters)
    chunks.add_itxt(WEBUI_TEXT, text)
    chunks.add_itxt(JSON_TEXT, json.dumps(parameters))
    return chunks


def _exif(parameters: Mapping[str, Any]) -> bytes:
    exif = Image.Exif()
    text = infotext.write(parameters)
    exif.get_ifd(EXIF_IFD)[EXIF_USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    exif[EXIF_DESCRIPTION] = json.dumps(parameters)
    if len(exif.tobytes()) > MAX_EXIF:
        del exif[EXIF_DESCRIPTION]
    packed = exif.tobytes()
    return packed if len(packed) <= MAX_EXIF else b""
