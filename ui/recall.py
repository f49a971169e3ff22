"""The parameters that lie in an image's file: this service's JSON, else the WebUI's text."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ui.client import ServiceError

EXIF_DESCRIPTION, EXIF_USER_COMMENT, EXIF_IFD = 0x010E, 0x9286, 0x8769
#: the WebUI's names
WEBUI: dict[str, tuple[str, Callable[[str], Any]]] = {
    "Steps": ("num_inference_steps", int),
    "Sampler": ("scheduler", str),
    "CFG scale": ("guidance_scale", float),
    "Seed": ("seed", int),
    "Denoising strength": ("strength", float),
}
PAIR = re.compile(r'\s*([\w ]+):\s*("(?:\\.|[^"])*"|[^,]*)(?:,|$)')


def read(path: str | Path) -> dict[str, Any]:
    """The parameters of an image drawn here, or by a WebUI.

    Raises:
        ServiceError: not an image, or nothing lies in it.
    """
    try:
        with Image.open(path) as image:
            chunk, text = _texts(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ServiceError("this file is not an image", field="file") from error
    found = _json(chunk) or from_webui(text)
    if not found:
        raise ServiceError("this image carries no parameters", field="file")
    return found


def from_webui(text: str) -> dict[str, Any]:
    """Parameters from the text the Stable Diffusion WebUI writes; {} where it is none."""
    body, _, last = text.rpartition("\n")
    pairs = dict(PAIR.findall(last))
    if "Steps" not in pairs:
        return {}
    prompt, _, negative = body.partition("Negative prompt:")
    found: dict[str, Any] = {"prompt": prompt.strip(), "negative_prompt": negative.strip()}
    width, _, height = pairs.get("Size", "").partition("x")
    if width.isdigit() and height.isdigit():
        found |= {"width": int(width), "height": int(height)}
    for name, (field, kind) in WEBUI.items():
        with contextlib.suppress(KeyError, ValueError):  # others' files may hold anything
            found[field] = kind(pairs[name].strip())
    return found


def _texts(image: Image.Image) -> tuple[str, str]:
    """(JSON, WebUI text): PNG's text chunks, else EXIF's."""
    if "parameters" in image.info or "sd-parameters" in image.info:
        return str(image.info.get("sd-parameters", "")), str(image.info.get("parameters", ""))
    exif = image.getexif()
    comment = exif.get_ifd(EXIF_IFD).get(EXIF_USER_COMMENT, b"")
    text = comment[8:].decode("utf-16-be", "replace") if isinstance(comment, bytes) else ""
    return str(exif.get(EXIF_DESCRIPTION, "")), text


def _json(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) and "prompt" in content else {}
