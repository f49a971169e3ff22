"""Uploads to RGB images, and images to PNG, JPEG or WebP with their parameters inside."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from runnables.errors import PayloadTooLarge, UnsupportedImage
from runnables.images import infotext

Format = Literal["png", "jpeg", "webp"]

#: what an upload may be; the rest of Pillow's readers stay shut
READABLE = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
QUALITY = 95
#: zlib's fastest level: at 1024x1024 the default takes 5 times as long for 5% fewer bytes
PNG_LEVEL = 1
#: what a JPEG's marker holds of EXIF, in bytes
MAX_EXIF = 65_533
EXIF_DESCRIPTION, EXIF_USER_COMMENT, EXIF_IFD = 0x010E, 0x9286, 0x8769
#: the texts of a PNG that carry its parameters: in the WebUI's form, and as our JSON
WEBUI_TEXT, JSON_TEXT = "parameters", "sd-parameters"


def decode(data: bytes, *, max_pixels: int, field: str) -> Image.Image:
    """An upload as RGB: upright, the first frame, transparency on white, 16-bit grey as 8-bit.

    Raises:
        UnsupportedImage: not an image, a kind that is not read, or cut off.
        PayloadTooLarge: more than `max_pixels`; found from the header, before decoding.
    """
    image = _open(data, max_pixels, field)
    try:
        image = ImageOps.exif_transpose(image)
        return _flatten(image)
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise _cut_off(field, error) from error


def decode_mask(data: bytes, *, max_pixels: int) -> Image.Image:
    """A mask as 8-bit grey; white is redrawn."""
    return decode(data, max_pixels=max_pixels, field="mask").convert("L")


def decode_transparency(data: bytes, *, max_pixels: int, field: str) -> Image.Image | None:
    """How transparent an upload is, as 8-bit grey: 255 where its alpha is 0. None without alpha.

    As a mask it says what OpenAI's API means: what is transparent is redrawn.

    Raises:
        UnsupportedImage, PayloadTooLarge: as `decode`.
    """
    image = _open(data, max_pixels, field)
    if "A" not in image.getbands() and "transparency" not in image.info:
        return None
    try:
        alpha = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise _cut_off(field, error) from error
    return ImageOps.invert(alpha)


def read_texts(data: bytes, *, max_pixels: int, field: str) -> dict[str, str]:
    """Return the texts in an image's file; those of JPEG and WebP by the names they have in PNG.

    Raises:
        UnsupportedImage, PayloadTooLarge: As `decode`.
    """
    image = _open(data, max_pixels, field)
    try:
        image.load()  # a PNG's texts may stand behind its pixels
        exif = image.getexif()
        comment = exif.get_ifd(EXIF_IFD).get(EXIF_USER_COMMENT, b"")
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise _cut_off(field, error) from error
    found = {WEBUI_TEXT: _comment(comment), JSON_TEXT: str(exif.get(EXIF_DESCRIPTION, ""))}
    chunks = {key: str(value) for key, value in getattr(image, "text", {}).items()}
    return {**{name: text for name, text in found.items() if text}, **chunks}


def encode(
    image: Image.Image, format: Format, parameters: Mapping[str, Any] | None = None
) -> bytes:
    """The image's file, with `parameters` in a text chunk (PNG) or in EXIF (JPEG, WebP).

    EXIF holds 64 KB: very long prompts in it are told in the WebUI's form only, without the JSON.
    """
    buffer = io.BytesIO()
    if format == "png":
        image.save(buffer, "PNG", compress_level=PNG_LEVEL, pnginfo=_chunks(parameters))
    else:
        options: dict[str, Any] = {"exif": _exif(parameters)} if parameters else {}
        image.save(buffer, format.upper(), quality=QUALITY, **options)
    return buffer.getvalue()


def _open(data: bytes, max_pixels: int, field: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=READABLE)
    except Image.DecompressionBombError as error:
        raise PayloadTooLarge(f"{field} has too many pixels", loc=(field,)) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UnsupportedImage(
            f"{field} is not an image that can be read ({', '.join(READABLE)})", loc=(field,)
        ) from error
    if image.width * image.height > max_pixels:
        raise PayloadTooLarge(
            f"{field} is {image.width}x{image.height}, over the limit of {max_pixels} pixels",
            loc=(field,),
        )
    return image


def _cut_off(field: str, error: Exception) -> UnsupportedImage:
    return UnsupportedImage(f"{field} cannot be decoded; is it cut off? ({error})", loc=(field,))


def _comment(exif: object) -> str:
    """EXIF's user comment; after its eight bytes of encoding, UTF-16 where it says Unicode."""
    if not isinstance(exif, bytes):
        return str(exif)
    kind, text = exif[:8], exif[8:]
    coding = "utf-16-be" if kind == b"UNICODE\0" else "utf-8"
    return text.decode(coding, errors="replace").rstrip("\0")


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would clip: everything over 255 turns white
        return image.point(lambda value: value / 256, "L").convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


def _chunks(parameters: Mapping[str, Any] | None) -> PngImagePlugin.PngInfo | None:
    if not parameters:
        return None
    chunks = PngImagePlugin.PngInfo()
    text = infotext.write(parameters) if "prompt" in parameters else json.dumps(parameters)
    chunks.add_itxt(WEBUI_TEXT, text)
    chunks.add_itxt(JSON_TEXT, json.dumps(parameters))
    return chunks


def _exif(parameters: Mapping[str, Any]) -> bytes:
    exif = Image.Exif()
    text = infotext.write(parameters) if "prompt" in parameters else json.dumps(parameters)
    exif.get_ifd(EXIF_IFD)[EXIF_USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    exif[EXIF_DESCRIPTION] = json.dumps(parameters)
    if len(exif.tobytes()) > MAX_EXIF:
        del exif[EXIF_DESCRIPTION]
    return exif.tobytes()
