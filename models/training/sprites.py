"""Pictures of the concepts with a transparent ground, in two styles, as one array on disk."""

# mypy: disable-error-code="no-any-return"
# (numpy expressions are typed Any in part)
from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from models.training.canvas import Array
from models.training.concepts import concepts
from models.training.packages import FLUENT, NOTO, fetch

STYLES = ("3d", "flat")
SIZE = 144  # pixels of a stored sprite's longer side


def sprites(work: Path) -> dict[tuple[str, str], Array]:
    """{(concept, style): (SIZE, SIZE, 4) uint8 with premultiplied colours}, made once."""
    path = work / "sprites.npz"
    if not path.exists():
        made = {f"{name}|{style}": sprite for (name, style), sprite in _make(work).items()}
        np.savez_compressed(path, **made)  # type: ignore[arg-type]
    with np.load(path) as stored:
        return {(k.split("|")[0], k.split("|")[1]): stored[k] for k in stored.files}


def _make(work: Path) -> dict[tuple[str, str], Array]:
    pictures = fetch(FLUENT, work) / "assets"
    icons = _Icons(fetch(NOTO, work))
    found = {}
    for name, concept in concepts().items():
        file = pictures / f"{_code(concept.emoji)}.webp"
        if file.exists():
            found[name, "3d"] = _fitted(Image.open(file).convert("RGBA"))
        flat = icons.render(concept.emoji)
        if flat is not None:
            found[name, "flat"] = _fitted(flat)
    return found


def _code(emoji: str) -> str:
    return "-".join(f"{ord(letter):04x}" for letter in emoji)


class _Icons:
    """Noto's drawings by emoji, rendered from SVG."""

    def __init__(self, package: Path) -> None:
        self.names = json.loads((package / "chars.json").read_text())
        self.icons = json.loads((package / "icons.json").read_text())["icons"]

    def render(self, emoji: str) -> Image.Image | None:
        import resvg_py

        code = _code(emoji)
        name = self.names.get(code) or self.names.get(code.replace("-fe0f", ""))
        if name not in self.icons:
            return None
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128" width="256" '
            f'height="256">{self.icons[name]["body"]}</svg>'
        )
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def _fitted(picture: Image.Image) -> Array:
    """Cut to what is visible, on a square; premultiplied colours keep edges clean."""
    box = picture.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    picture = picture.crop(box)
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    pixels = np.asarray(square).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    channels = [
        Image.fromarray(pixels[..., c]).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        for c in range(4)
    ]
    return np.clip(np.stack([np.asarray(c) for c in channels], -1), 0, 255).round().astype(np.uint8)
