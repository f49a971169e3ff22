"""Pictures of things: sprites pasted over a colour, a soft gradient or a scene.

Positions and sizes are multiples of 8 pixels, the size of a latent's pixel. A thing then looks the
same to the autoencoder wherever it stands, which makes it far easier to learn. In a picture twice
as high and wide as the model's own it is 1.4 times as large.
"""

# mypy: disable-error-code="no-any-return"
# (numpy expressions are typed Any in part)
from __future__ import annotations

import colorsys
import random
from functools import cache

import numpy as np
from PIL import Image

from models.training.canvas import Array, gradient, grid
from models.training.sprites import SIZE
from models.training.subject import Subject

Sprites = dict[tuple[str, str], Array]
CELL = 8  # pixels of the picture for a pixel of its latents
EXTENT = {"small": 7, "": 11, "large": 14}  # cells that a thing is high and wide
PAIR = 8  # cells of each of two things
CELLS = 16  # cells of a picture of the model's own size; the figures above are for it
SHIFT = {"small": 4, "": 2, "large": 1}  # cells from the middle to a named place


def paste(picture: Array, subject: Subject, rng: random.Random, sprites: Sprites) -> Array:
    """The picture with the subject's one or two things on it."""
    rows, columns = picture.shape[0] // CELL, picture.shape[1] // CELL
    scale = min(rows, columns) / CELLS
    picture = picture.copy()
    if subject.other:
        space, pair = columns // 2, round(PAIR * scale**0.5)
        for index, name in enumerate((subject.thing, subject.other)):
            left = index * space + (space - pair + index) // 2
            top = (rows - pair) // 2 + rng.choice([0, 0, 1, 2])
            _put(picture, sprites, name, subject.style, pair, top, left)
        return picture
    size = min(round(EXTENT[subject.size] * scale**0.5), rows, columns)
    down, right = (round(cells * scale) for cells in _offset(subject, rng))
    top = min(max((rows - size) // 2 + down, 0), rows - size)
    left = min(max((columns - size + 1) // 2 + right, 0), columns - size)
    _put(picture, sprites, subject.thing, subject.style, size, top, left)
    return picture


def _offset(subject: Subject, rng: random.Random) -> tuple[int, int]:
    """Cells down and to the right of the middle."""
    shift = SHIFT[subject.size]
    if subject.place:
        down, right = {"left": (0, -1), "right": (0, 1), "top": (-1, 0), "bottom": (1, 0)}[
            subject.place
        ]
        return down * shift, right * shift
    down = rng.choice([1, 1, 2]) if subject.scene else rng.choice([0, 0, 0, 1])
    return down, rng.choice([-1, 0, 0, 0, 1])


def _put(
    picture: Array, sprites: Sprites, name: str, style: str, cells: int, top: int, left: int
) -> None:
    sprite = _resized(sprites[name, style].tobytes(), cells * CELL)
    y, x = top * CELL, left * CELL
    part = picture[y : y + cells * CELL, x : x + cells * CELL]
    cut = sprite[: part.shape[0], : part.shape[1]]
    part[:] = part * (1 - cut[..., 3:]) + cut[..., :3]


@cache
def _resized(sprite: bytes, pixels: int) -> Array:
    source = np.frombuffer(sprite, np.uint8).reshape(SIZE, SIZE, 4)
    small = Image.fromarray(source, "RGBa").resize((pixels, pixels), Image.Resampling.LANCZOS)
    return (np.asarray(small) / 255).astype(np.float32)


def soft_ground(rng: random.Random, height: int, width: int) -> Array:
    """A pale gradient of a random hue, or nearly white."""
    y, _ = grid(height, width)
    hue, strength = rng.random(), rng.choice([0.03, 0.12, 0.2])
    top = colorsys.hsv_to_rgb(hue, strength, rng.uniform(0.93, 1.0))
    bottom = colorsys.hsv_to_rgb(hue + rng.uniform(-0.06, 0.06), strength * 1.5, 0.9)
    return gradient(y, top, bottom)
