"""The world of the embedded model: procedurally composed pictures, each with a caption.

Three kinds: one coloured shape on a coloured background (with a size and a place), scenes, and
things from sprites on a colour, a gradient or a scene. All randomness comes from the
`random.Random` that is passed in, so a seed gives the same picture and caption. Pictures are
(H, W, 3) float32 arrays in 0..1.
"""

# mypy: disable-error-code="no-any-return"
# (numpy expressions are typed Any in part)
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from models.training.canvas import Array, edge, grid, mix
from models.training.captions import caption
from models.training.concepts import concepts
from models.training.scenes import BEHIND, SCENES
from models.training.subject import COLOURS, PLACES, SIZES, Subject
from models.training.things import Sprites, paste, soft_ground

__all__ = [
    "COLOURS",
    "PLACES",
    "SCENES",
    "SHAPES",
    "SIZES",
    "Subject",
    "caption",
    "render",
    "subject",
    "thing",
    "told",
]


# -- shapes: signed distances, negative inside, in units of the half size --------------------------


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 1


def _square(x: Array, y: Array) -> Array:
    return np.maximum(abs(x), abs(y)) - 0.88


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(y - 0.8, 0.89 * abs(x) - 0.45 * y - 0.45)


def _diamond(x: Array, y: Array) -> Array:
    return (abs(x) * 1.25 + abs(y) - 1.1) * 0.7


def _star(x: Array, y: Array) -> Array:
    angle = np.arctan2(x, -y)
    sector = np.abs((angle / (2 * np.pi / 5)) % 1 - 0.5) * 2  # 1 at the points, 0 between
    radius = 0.44 / (0.44 + (1 - 0.44) * (1 - sector) * 0.98 + 0.0)
    return (np.hypot(x, y) - 1.08 * radius) * 0.7


def _heart(x: Array, y: Array) -> Array:
    u, v = abs(x) * 1.15, 0.25 - y * 1.15
    left = np.hypot(u - 0.5, v - 0.25) - 0.56
    tip = np.maximum(0.74 * u - 0.70 * (v + 0.95), v - 0.25)
    return np.minimum(left, tip) * 0.8


#: colours that go without saying
NATURAL = {"heart": "red", "star": "yellow"}
SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "heart": _heart,
}


def draw_shape(subject: Subject, rng: random.Random, height: int, width: int) -> Array:
    """A flat background with one antialiased shape."""
    y, x = grid(height, width)
    half = SIZES[subject.size] * rng.uniform(0.93, 1.07)
    dx, dy = PLACES[subject.place]
    cx, cy = dx * width / min(height, width), dy * height / min(height, width)
    cx, cy = cx + rng.uniform(-0.03, 0.03), cy + rng.uniform(-0.03, 0.03)
    distance = SHAPES[subject.shape]((x - cx) / half, (y - cy) / half) * half
    cover = edge(distance, min(height, width))
    return mix(_colour(subject.background, rng), _colour(subject.colour, rng), cover)


def render(
    subject: Subject,
    rng: random.Random,
    height: int = 128,
    width: int = 128,
    sprites: Sprites | None = None,
) -> Array:
    """(height, width, 3) float32 in 0..1; pictures of things need the sprites."""
    if subject.thing:
        picture = paste(_ground(subject, rng, height, width), subject, rng, sprites or {})
    elif subject.scene:
        picture = SCENES[subject.scene](rng, height, width)
    else:
        picture = draw_shape(subject, rng, height, width)
    return np.clip(picture, 0, 1).astype(np.float32)


def _ground(subject: Subject, rng: random.Random, height: int, width: int) -> Array:
    """Return the background of a thing."""
    if subject.scene:
        return np.clip(SCENES[subject.scene](rng, height, width), 0, 1)
    if subject.background:
        return np.ones((height, width, 3)) * _colour(subject.background, rng)
    return soft_ground(rng, height, width)


def told(subject: Subject, rng: random.Random) -> Subject:
    """Return what the caption will say: at times it leaves the background or the colour open."""
    if subject.shape and rng.random() < 0.08:
        subject = replace(subject, background="")
    natural = subject.shape and NATURAL.get(subject.shape) == subject.colour
    if natural and rng.random() < 0.5:
        subject = replace(subject, colour="")
    return subject


def subject(rng: random.Random, scene_share: float = 0.3, thing_share: float = 0.0) -> Subject:
    """A random subject; foreground and background colours differ."""
    kind = rng.random()
    if kind < thing_share:
        return thing(rng)
    if rng.random() < scene_share:
        return Subject(scene=rng.choice(list(SCENES)))
    colour, background = rng.sample(list(COLOURS), 2)
    plain = rng.random() < 0.4
    return Subject(
        rng.choice(list(SHAPES)),
        colour,
        background,
        "" if plain else rng.choice(list(SIZES)),
        "" if plain else rng.choice(list(PLACES)),
    )


def thing(rng: random.Random, name: str = "") -> Subject:
    """A random subject with one thing, or now and then two."""
    names = list(concepts())
    name = name or rng.choice(names)
    style = "3d" if rng.random() < 0.75 else "flat"
    ground = rng.random()
    scene = rng.choice(BEHIND) if ground < 0.25 else ""
    background = rng.choice(list(COLOURS)) if 0.25 <= ground < 0.45 else ""
    if rng.random() < 0.1:
        other = name if rng.random() < 0.4 else rng.choice(names)
        return Subject(background=background, scene=scene, thing=name, style=style, other=other)
    plain = rng.random() < 0.65
    return Subject(
        background=background,
        size="" if plain else rng.choice(list(SIZES)),
        place="" if plain or scene else rng.choice(list(PLACES)),
        scene=scene,
        thing=name,
        style=style,
    )


def _colour(name: str, rng: random.Random) -> Array:
    return np.array([c + rng.uniform(-0.03, 0.03) for c in COLOURS[name]])
