"""The world of the embedded model: procedurally drawn pictures, each with a caption.

Two kinds: one coloured shape on a coloured background (with a size and a place), and scenes. All
randomness comes from the `random.Random` handed in, so a seed gives the same picture and caption.
Pictures are (H, W, 3) float32 arrays in 0..1.
"""

# mypy: disable-error-code="no-any-return"
# (numpy and torch expressions are typed Any in part)
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

Array = np.ndarray

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.98, 0.55, 0.08),
    "yellow": (0.97, 0.88, 0.15),
    "green": (0.12, 0.62, 0.22),
    "blue": (0.12, 0.27, 0.85),
    "purple": (0.55, 0.18, 0.68),
    "black": (0.05, 0.05, 0.06),
    "white": (0.97, 0.97, 0.96),
}
SIZES = {"small": 0.2, "": 0.3, "large": 0.4}
PLACES = {
    "": (0.0, 0.0),
    "left": (-0.22, 0.0),
    "right": (0.22, 0.0),
    "top": (0.0, -0.22),
    "bottom": (0.0, 0.22),
}


@dataclass(frozen=True)
class Subject:
    """What a picture shows. Shapes have the first five fields, scenes the last."""

    shape: str = ""
    colour: str = ""
    background: str = ""
    size: str = ""
    place: str = ""
    scene: str = ""


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
    y, x = _grid(height, width)
    half = SIZES[subject.size] * rng.uniform(0.93, 1.07)
    dx, dy = PLACES[subject.place]
    cx, cy = dx * width / min(height, width), dy * height / min(height, width)
    cx, cy = cx + rng.uniform(-0.03, 0.03), cy + rng.uniform(-0.03, 0.03)
    distance = SHAPES[subject.shape]((x - cx) / half, (y - cy) / half) * half
    cover = _edge(distance, min(height, width))
    return _mix(_colour(subject.background, rng), _colour(subject.colour, rng), cover)


# -- scenes ----------------------------------------------------------------------------------------


def _city(rng: random.Random, height: int, width: int, night: bool) -> Array:
    y, x = _grid(height, width)
    if night:
        picture = _gradient(y, (0.03, 0.02, 0.12), (0.32, 0.06, 0.36))
    else:
        picture = _gradient(y, (0.35, 0.62, 0.92), (0.80, 0.90, 0.97))
    for layer in range(2):
        left = -0.55 * width / min(height, width)
        right = -left
        while left < right:
            w, top = rng.uniform(0.10, 0.2), rng.uniform(-0.32, 0.12) + 0.08 * layer
            inside = (x >= left) & (x < left + w) & (y > top)
            if night:
                wall = np.array((0.05, 0.04, 0.12)) + 0.03 * (1 - layer)
            else:
                wall = np.array((0.62, 0.64, 0.70)) - 0.16 * layer + rng.uniform(-0.05, 0.05)
            picture[inside] = wall
            if layer:
                _windows(picture, rng, x, y, left, w, top, night)
            left += w + rng.uniform(0.0, 0.03)
    if night:
        for _ in range(rng.randint(2, 4)):
            _neon(picture, rng, x, y)
        picture[y > 0.42] = (0.10, 0.03, 0.16)
        glow = np.exp(-(((y - 0.42) / 0.04) ** 2))[..., None]
        picture = picture + glow * np.array(rng.choice(NEON)) * 0.7
    else:
        picture[y > 0.42] = (0.35, 0.36, 0.38)
    return picture


NEON = [(1.0, 0.1, 0.7), (0.1, 0.9, 1.0), (0.7, 0.2, 1.0)]


def _windows(
    picture: Array,
    rng: random.Random,
    x: Array,
    y: Array,
    left: float,
    w: float,
    top: float,
    night: bool,
) -> None:
    columns = max(2, round(w / 0.055))
    step = w / columns
    lit = (1.0, 0.85, 0.35) if night else (0.86, 0.92, 0.98)
    for row in range(12):
        cy = top + 0.05 + row * 0.062
        if cy > 0.4:
            break
        for column in range(columns):
            if rng.random() < (0.55 if night else 0.9):
                cx = left + (column + 0.5) * step
                inside = (abs(x - cx) < step * 0.27) & (abs(y - cy) < 0.017)
                picture[inside] = rng.choice([lit, *NEON[:2]]) if night else lit


def _neon(picture: Array, rng: random.Random, x: Array, y: Array) -> None:
    cx, cy, tall = rng.uniform(-0.4, 0.4), rng.uniform(-0.12, 0.2), rng.uniform(0.06, 0.13)
    distance = np.maximum(abs(x - cx) / 0.035, abs(y - cy) / tall)
    colour = np.array(rng.choice(NEON))
    picture += np.exp(-3 * np.maximum(distance - 1, 0))[..., None] * colour * 0.35
    picture[distance < 0.8] = colour


def _mountains(rng: random.Random, height: int, width: int) -> Array:
    y, x = _grid(height, width)
    picture = _gradient(y, (0.40, 0.64, 0.92), (0.86, 0.92, 0.98))
    for layer in range(3):
        crest = _ridge(rng, x, 0.02 + 0.13 * layer, 0.20 - 0.05 * layer, sharp=True)
        rock = np.array((0.42, 0.46, 0.56)) - 0.10 * layer
        picture = _mix(picture, rock, _edge(crest - y, min(height, width)))
        if layer == 0:
            snow = (y > crest) & (y < crest + 0.07 + 0.02 * np.sin(40 * x))
            picture[snow & (crest < 0.02)] = (0.97, 0.98, 1.0)
    picture[y > 0.40] = (0.22, 0.45, 0.22)
    return picture


def _sea(rng: random.Random, height: int, width: int) -> Array:
    y, x = _grid(height, width)
    picture = _gradient(y, (0.45, 0.72, 0.95), (0.80, 0.92, 0.98))
    horizon = rng.uniform(-0.08, 0.05)
    sea = y > horizon
    depth = np.clip((y - horizon) / 0.5, 0, 1)[..., None]
    water = (1 - depth) * np.array((0.10, 0.50, 0.75)) + depth * np.array((0.03, 0.22, 0.48))
    waves = np.sin(
        60 * (y - horizon) / (0.35 + depth[..., 0]) + 3 * np.sin(9 * x + rng.uniform(0, 6))
    )
    water = water + (waves > 0.75)[..., None] * 0.18
    picture[sea] = water[sea]
    if rng.random() < 0.6:
        cx = rng.uniform(-0.25, 0.25)
        hull = (abs(x - cx) < 0.10 - (y - horizon) * 0.8) & (abs(y - horizon - 0.02) < 0.022)
        sail = (
            (x > cx - 0.01)
            & (x - cx < (y - horizon + 0.2) * 0.55)
            & (y < horizon)
            & (y > horizon - 0.2)
        )
        picture[sail] = (0.98, 0.98, 0.96)
        picture[hull] = (0.55, 0.16, 0.12)
    return picture


def _sunset(rng: random.Random, height: int, width: int) -> Array:
    y, x = _grid(height, width)
    picture = _gradient(y, (0.42, 0.12, 0.42), (1.0, 0.55, 0.15))
    cx, horizon = rng.uniform(-0.2, 0.2), rng.uniform(0.10, 0.18)
    sun = np.hypot(x - cx, y - horizon + rng.uniform(0.0, 0.06))
    picture = picture + np.exp(-sun / 0.18)[..., None] * np.array((0.5, 0.3, 0.05))
    picture = _mix(picture, np.array((1.0, 0.90, 0.45)), _edge(sun - 0.13, min(height, width)))
    ground = y > horizon
    streak = np.exp(-(((x - cx) / 0.09) ** 2)) * (np.sin(70 * y) > 0)
    sea = np.array((0.30, 0.10, 0.26)) + streak[..., None] * np.array((0.65, 0.42, 0.10))
    picture[ground] = sea[ground]
    return picture


def _forest(rng: random.Random, height: int, width: int) -> Array:
    y, x = _grid(height, width)
    picture = _gradient(y, (0.66, 0.84, 0.90), (0.86, 0.94, 0.84))
    picture[y > 0.28] = (0.20, 0.40, 0.16)
    for layer in range(2):
        for _ in range(6 + 2 * layer):
            cx = rng.uniform(-0.55, 0.55) * width / min(height, width)
            base, tall = 0.26 + 0.12 * layer + rng.uniform(0, 0.04), rng.uniform(0.38, 0.55)
            green = np.array((0.10, 0.42, 0.16)) * rng.uniform(0.75, 1.1) * (1 - 0.2 * layer)
            trunk = (abs(x - cx) < 0.018) & (y > base - 0.06) & (y < base + 0.05)
            picture[trunk] = (0.35, 0.22, 0.12)
            level = (y - (base - tall)) / tall
            crown = (
                (level > 0)
                & (level < 0.95)
                & (abs(x - cx) < 0.13 * (level * 3 % 1 * 0.5 + level * 0.6))
            )
            picture[crown] = green
    return picture


def _stars(rng: random.Random, height: int, width: int) -> Array:
    y, x = _grid(height, width)
    picture = _gradient(y, (0.01, 0.01, 0.06), (0.05, 0.07, 0.24))
    for _ in range(rng.randint(28, 45)):
        cx, cy = rng.uniform(-0.5, 0.5) * width / min(height, width), rng.uniform(-0.5, 0.5)
        bright, size = rng.uniform(0.5, 1.0), rng.uniform(0.006, 0.013)
        picture += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / size**2)[..., None] * bright
    if rng.random() < 0.7:
        cx, cy = rng.uniform(-0.3, 0.3), rng.uniform(-0.35, -0.15)
        moon = np.maximum(
            np.hypot(x - cx, y - cy) - 0.09, 0.085 - np.hypot(x - cx - 0.05, y - cy + 0.02)
        )
        picture = _mix(picture, np.array((0.96, 0.94, 0.80)), _edge(moon, min(height, width)))
    crest = _ridge(rng, x, 0.40, 0.04, sharp=False)
    return _mix(picture, np.array((0.01, 0.02, 0.04)), _edge(crest - y, min(height, width)))


def _desert(rng: random.Random, height: int, width: int) -> Array:
    y, x = _grid(height, width)
    picture = _gradient(y, (0.45, 0.70, 0.92), (0.98, 0.90, 0.72))
    sun = np.hypot(x - rng.uniform(-0.3, 0.3), y + 0.30)
    picture = _mix(picture, np.array((1.0, 0.95, 0.70)), _edge(sun - 0.08, min(height, width)))
    for layer in range(3):
        crest = _ridge(rng, x, 0.02 + 0.14 * layer, 0.07, sharp=False)
        sand = np.array((0.92, 0.74, 0.42)) - 0.10 * layer * np.array((0.8, 1.0, 0.8))
        picture = _mix(picture, sand, _edge(crest - y, min(height, width)))
    for _ in range(rng.randint(1, 3)):
        cx, base = rng.uniform(-0.4, 0.4), rng.uniform(0.25, 0.42)
        stem = (abs(x - cx) < 0.022) & (y < base) & (y > base - 0.24)
        arm = (abs(y - base + 0.12) < 0.018) & (abs(x - cx) < 0.08)
        tips = (abs(abs(x - cx) - 0.07) < 0.018) & (y < base - 0.11) & (y > base - 0.19)
        picture[stem | arm | tips] = (0.16, 0.42, 0.20)
    return picture


SCENES: dict[str, Callable[[random.Random, int, int], Array]] = {
    "night city": lambda rng, h, w: _city(rng, h, w, night=True),
    "day city": lambda rng, h, w: _city(rng, h, w, night=False),
    "mountains": _mountains,
    "sea": _sea,
    "sunset": _sunset,
    "forest": _forest,
    "starry sky": _stars,
    "desert": _desert,
}


def render(subject: Subject, rng: random.Random, height: int = 128, width: int = 128) -> Array:
    """(height, width, 3) float32 in 0..1."""
    if subject.scene:
        picture = SCENES[subject.scene](rng, height, width)
    else:
        picture = draw_shape(subject, rng, height, width)
    return np.clip(picture, 0, 1).astype(np.float32)


# -- captions --------------------------------------------------------------------------------------

SCENE_WORDS: dict[str, list[str]] = {
    "night city": [
        "cyberpunk city",
        "city at night",
        "city skyline at night",
        "neon city",
        "futuristic city",
        "night city with neon lights",
        "city at night with neon lights",
        "cyberpunk skyline",
        "futuristic city at night",
        "downtown at night",
        "neon lit streets at night",
        "cyberpunk city at night",
        "skyscrapers at night",
        "cyberpunk street",
        "dark city with glowing windows",
        "sci-fi city",
        "metropolis at night",
    ],
    "day city": [
        "city",
        "city by day",
        "city skyline",
        "city skyline by day",
        "downtown",
        "skyscrapers",
        "modern city in daylight",
        "city on a clear day",
        "town with tall buildings",
        "metropolis",
    ],
    "mountains": [
        "mountains",
        "snowy mountains",
        "mountain range",
        "mountain landscape",
        "the alps",
        "mountain peaks with snow",
        "mountains under a blue sky",
        "a mountain",
    ],
    "sea": [
        "sea",
        "ocean",
        "the sea on a calm day",
        "the ocean with waves",
        "a sailing boat on the sea",
        "blue sea",
        "waves",
        "seascape",
        "a boat on the water",
        "the sea by day",
    ],
    "sunset": [
        "sunset",
        "sunset over the sea",
        "sunrise",
        "a beautiful sunset",
        "sunset at the beach",
        "the setting sun",
        "orange sunset",
        "evening sky with the setting sun",
        "dusk",
    ],
    "forest": [
        "forest",
        "forest with tall trees",
        "trees",
        "pine forest",
        "green forest",
        "woods",
        "a forest in the morning",
        "fir trees",
        "the woods by day",
    ],
    "starry sky": [
        "starry sky",
        "night sky",
        "stars",
        "night sky full of stars",
        "the moon and stars",
        "galaxy of stars",
        "starry night",
        "stars above the hills",
        "the milky way",
    ],
    "desert": [
        "desert",
        "sand dunes",
        "desert with cactus",
        "hot desert",
        "dunes",
        "sahara",
        "cactus in the desert",
        "sandy desert under the sun",
        "a dry desert",
    ],
}
SCENE_STYLES = [
    "{}",
    "{}",
    "view of {}",
    "View of a {}",
    "a view of {}",
    "a photo of {}",
    "a picture of {}",
    "a painting of {}",
    "an illustration of {}",
    "{}, digital art",
    "{}, highly detailed",
    "landscape with {}",
    "beautiful {}",
    "{} scene",
    "A {}",
]
SHAPE_STYLES = [
    "{}",
    "{}",
    "a picture of {}",
    "a drawing of {}",
    "a photo of {}",
    "an image of {}",
    "a painting of {}",
    "{}, flat design",
    "{}, minimal",
    "{}, icon",
]
BIG = {"small": ["small", "tiny", "little"], "large": ["large", "big", "huge"], "": [""]}
AT = {
    "": ["", "", "in the middle", "in the center"],
    "left": ["on the left", "at the left", "on the left side"],
    "right": ["on the right", "at the right", "on the right side"],
    "top": ["at the top", "on top", "in the upper half"],
    "bottom": ["at the bottom", "in the lower half", "at the lower edge"],
}


def caption(subject: Subject, rng: random.Random) -> str:
    """One of many ways to say what the picture shows."""
    if subject.scene:
        text = rng.choice(SCENE_STYLES).format(rng.choice(SCENE_WORDS[subject.scene]))
        return text.replace("a a ", "a ").replace("a the ", "the ").replace("A a ", "A ")
    size, at = rng.choice(BIG[subject.size]), rng.choice(AT[subject.place])
    thing = " ".join(filter(None, [size, subject.colour, subject.shape]))
    thing = rng.choice(["{}", "a {}", "a {}", "a {}"]).format(thing)
    back = subject.background
    if not back:
        return rng.choice(SHAPE_STYLES).format(" ".join(filter(None, [thing, at])))
    ground = rng.choice(
        [
            "on a {} background",
            "on a {} background",
            "on {}",
            "against a {} background",
            "with a {} background",
            "{} background",
        ]
    ).format(back)
    if rng.random() < 0.15:
        text = ", ".join(filter(None, [thing, at, ground]))
    else:
        text = " ".join(
            filter(None, [thing, at, ground] if rng.random() < 0.5 else [thing, ground, at])
        )
    return rng.choice(SHAPE_STYLES).format(text)


def told(subject: Subject, rng: random.Random) -> Subject:
    """What the caption will tell: now and then it leaves the background open."""
    return replace(subject, background="") if rng.random() < 0.08 else subject


def subject(rng: random.Random, scene_share: float = 0.3) -> Subject:
    """A random subject; foreground and background colours differ."""
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


# -- helpers ---------------------------------------------------------------------------------------


def _grid(height: int, width: int) -> tuple[Array, Array]:
    """y and x of the pixels' centres; the shorter side runs from -0.5 to 0.5."""
    unit = min(height, width)
    y = (np.arange(height) + 0.5 - height / 2) / unit
    x = (np.arange(width) + 0.5 - width / 2) / unit
    return tuple(np.meshgrid(y, x, indexing="ij"))  # type: ignore[return-value]


def _edge(distance: Array, unit: int) -> Array:
    """Cover 0..1 of a shape whose inside is where distance < 0, blended over about a pixel."""
    return np.clip(0.5 - distance * unit, 0, 1)[..., None]


def _mix(back: Array, front: Array, cover: Array) -> Array:
    return (1 - cover) * back + cover * front


def _colour(name: str, rng: random.Random) -> Array:
    return np.array([c + rng.uniform(-0.03, 0.03) for c in COLOURS[name]])


def _gradient(y: Array, top: tuple[float, ...], bottom: tuple[float, ...]) -> Array:
    t = np.clip(y + 0.5, 0, 1)[..., None]
    return (1 - t) * np.array(top) + t * np.array(bottom)


def _ridge(rng: random.Random, x: Array, level: float, swing: float, *, sharp: bool) -> Array:
    """A skyline y(x)."""
    line = np.zeros_like(x)
    for octave in (1, 2, 3):
        wave = rng.uniform(2.0, 3.2) * octave * x + rng.uniform(0, 6.28)
        shape = 1 - 2 * np.abs((wave / np.pi) % 1 * 2 - 1) if sharp else np.sin(wave)
        line = line + shape / octave
    return level + swing * 0.6 * line
