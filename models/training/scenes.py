"""The scenes the embedded model knows: each a function of a generator and a size."""

# mypy: disable-error-code="no-any-return"
# (numpy expressions are typed Any in part)
from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from models.training.canvas import Array, edge, gradient, grid, mix, ridge


def _city(rng: random.Random, height: int, width: int, night: bool) -> Array:
    y, x = grid(height, width)
    if night:
        picture = gradient(y, (0.03, 0.02, 0.12), (0.32, 0.06, 0.36))
    else:
        picture = gradient(y, (0.35, 0.62, 0.92), (0.80, 0.90, 0.97))
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
    y, x = grid(height, width)
    picture = gradient(y, (0.40, 0.64, 0.92), (0.86, 0.92, 0.98))
    for layer in range(3):
        crest = ridge(rng, x, 0.02 + 0.13 * layer, 0.20 - 0.05 * layer, sharp=True)
        rock = np.array((0.42, 0.46, 0.56)) - 0.10 * layer
        picture = mix(picture, rock, edge(crest - y, min(height, width)))
        if layer == 0:
            snow = (y > crest) & (y < crest + 0.07 + 0.02 * np.sin(40 * x))
            picture[snow & (crest < 0.02)] = (0.97, 0.98, 1.0)
    picture[y > 0.40] = (0.22, 0.45, 0.22)
    return picture


def _sea(rng: random.Random, height: int, width: int) -> Array:
    y, x = grid(height, width)
    picture = gradient(y, (0.45, 0.72, 0.95), (0.80, 0.92, 0.98))
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
    y, x = grid(height, width)
    picture = gradient(y, (0.42, 0.12, 0.42), (1.0, 0.55, 0.15))
    cx, horizon = rng.uniform(-0.2, 0.2), rng.uniform(0.10, 0.18)
    sun = np.hypot(x - cx, y - horizon + rng.uniform(0.0, 0.06))
    picture = picture + np.exp(-sun / 0.18)[..., None] * np.array((0.5, 0.3, 0.05))
    picture = mix(picture, np.array((1.0, 0.90, 0.45)), edge(sun - 0.13, min(height, width)))
    ground = y > horizon
    streak = np.exp(-(((x - cx) / 0.09) ** 2)) * (np.sin(70 * y) > 0)
    sea = np.array((0.30, 0.10, 0.26)) + streak[..., None] * np.array((0.65, 0.42, 0.10))
    picture[ground] = sea[ground]
    return picture


def _forest(rng: random.Random, height: int, width: int) -> Array:
    y, x = grid(height, width)
    picture = gradient(y, (0.66, 0.84, 0.90), (0.86, 0.94, 0.84))
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
    y, x = grid(height, width)
    picture = gradient(y, (0.01, 0.01, 0.06), (0.05, 0.07, 0.24))
    for _ in range(rng.randint(28, 45)):
        cx, cy = rng.uniform(-0.5, 0.5) * width / min(height, width), rng.uniform(-0.5, 0.5)
        bright, size = rng.uniform(0.5, 1.0), rng.uniform(0.006, 0.013)
        picture += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / size**2)[..., None] * bright
    if rng.random() < 0.7:
        cx, cy = rng.uniform(-0.3, 0.3), rng.uniform(-0.35, -0.15)
        moon = np.maximum(
            np.hypot(x - cx, y - cy) - 0.09, 0.085 - np.hypot(x - cx - 0.05, y - cy + 0.02)
        )
        picture = mix(picture, np.array((0.96, 0.94, 0.80)), edge(moon, min(height, width)))
    crest = ridge(rng, x, 0.40, 0.04, sharp=False)
    return mix(picture, np.array((0.01, 0.02, 0.04)), edge(crest - y, min(height, width)))


def _desert(rng: random.Random, height: int, width: int) -> Array:
    y, x = grid(height, width)
    picture = gradient(y, (0.45, 0.70, 0.92), (0.98, 0.90, 0.72))
    sun = np.hypot(x - rng.uniform(-0.3, 0.3), y + 0.30)
    picture = mix(picture, np.array((1.0, 0.95, 0.70)), edge(sun - 0.08, min(height, width)))
    for layer in range(3):
        crest = ridge(rng, x, 0.02 + 0.14 * layer, 0.07, sharp=False)
        sand = np.array((0.92, 0.74, 0.42)) - 0.10 * layer * np.array((0.8, 1.0, 0.8))
        picture = mix(picture, sand, edge(crest - y, min(height, width)))
    for _ in range(rng.randint(1, 3)):
        cx, base = rng.uniform(-0.4, 0.4), rng.uniform(0.25, 0.42)
        stem = (abs(x - cx) < 0.022) & (y < base) & (y > base - 0.24)
        arm = (abs(y - base + 0.12) < 0.018) & (abs(x - cx) < 0.08)
        tips = (abs(abs(x - cx) - 0.07) < 0.018) & (y < base - 0.11) & (y > base - 0.19)
        picture[stem | arm | tips] = (0.16, 0.42, 0.20)
    return picture


def _beach(rng: random.Random, height: int, width: int) -> Array:
    y, x = grid(height, width)
    picture = gradient(y, (0.35, 0.68, 0.95), (0.85, 0.95, 0.98))
    horizon, shore = rng.uniform(-0.12, -0.02), rng.uniform(0.12, 0.2)
    picture[y > horizon] = (0.10, 0.58, 0.78)
    line = shore + 0.02 * np.sin(7 * x + rng.uniform(0, 6))
    picture[y > line - 0.03] = (0.95, 0.98, 0.98)
    picture[y > line] = (0.95, 0.85, 0.62)
    return picture


def _meadow(rng: random.Random, height: int, width: int) -> Array:
    y, x = grid(height, width)
    picture = gradient(y, (0.42, 0.72, 0.96), (0.86, 0.95, 0.98))
    for layer in range(2):
        crest = ridge(rng, x, 0.08 + 0.14 * layer, 0.05, sharp=False)
        green = np.array((0.46, 0.76, 0.32)) - 0.10 * layer
        picture = mix(picture, green, edge(crest - y, min(height, width)))
    return picture


def _snow(rng: random.Random, height: int, width: int) -> Array:
    y, x = grid(height, width)
    picture = gradient(y, (0.62, 0.74, 0.88), (0.86, 0.91, 0.96))
    for layer in range(2):
        crest = ridge(rng, x, 0.10 + 0.14 * layer, 0.05, sharp=False)
        white = np.array((0.90, 0.93, 0.97)) + 0.06 * layer
        picture = mix(picture, white, edge(crest - y, min(height, width)))
    for _ in range(24):
        cx, cy = rng.uniform(-0.5, 0.5) * width / min(height, width), rng.uniform(-0.5, 0.5)
        flake = np.hypot(x - cx, y - cy) - rng.uniform(0.008, 0.014)
        picture = mix(picture, np.ones(3), edge(flake, min(height, width)))
    return picture


def _moonlight(rng: random.Random, height: int, width: int) -> Array:
    y, x = grid(height, width)
    picture = gradient(y, (0.03, 0.05, 0.18), (0.12, 0.18, 0.40))
    for _ in range(14):
        cx, cy = rng.uniform(-0.5, 0.5) * width / min(height, width), rng.uniform(-0.5, 0.1)
        picture += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.008**2)[..., None] * 0.8
    moon = np.hypot(x - rng.choice([-0.3, 0.3]), y + 0.3)
    picture = picture + np.exp(-moon / 0.12)[..., None] * np.array((0.4, 0.4, 0.35))
    picture = mix(picture, np.array((0.98, 0.96, 0.84)), edge(moon - 0.13, min(height, width)))
    crest = ridge(rng, x, 0.34, 0.03, sharp=False)
    return mix(picture, np.array((0.06, 0.14, 0.12)), edge(crest - y, min(height, width)))


def _table(rng: random.Random, height: int, width: int) -> Array:
    y, x = grid(height, width)
    wall = np.array(rng.choice([(0.93, 0.90, 0.84), (0.82, 0.90, 0.94), (0.88, 0.93, 0.84)]))
    picture = np.ones((height, width, 3)) * wall
    top = 0.16
    wood = np.array((0.66, 0.43, 0.24)) + 0.03 * np.sin(55 * y + 2 * np.sin(4 * x))[..., None]
    picture[y > top] = wood[y > top]
    picture[(y > top) & (y < top + 0.03)] = (0.76, 0.53, 0.32)
    return picture


#: scenes that a thing may stand in front of
BEHIND = [
    "night city",
    "day city",
    "mountains",
    "sea",
    "sunset",
    "forest",
    "starry sky",
    "desert",
    "beach",
    "meadow",
    "snow",
    "moonlight",
    "table",
    "table",
]
SCENES: dict[str, Callable[[random.Random, int, int], Array]] = {
    "night city": lambda rng, h, w: _city(rng, h, w, night=True),
    "day city": lambda rng, h, w: _city(rng, h, w, night=False),
    "mountains": _mountains,
    "sea": _sea,
    "sunset": _sunset,
    "forest": _forest,
    "starry sky": _stars,
    "desert": _desert,
    "beach": _beach,
    "meadow": _meadow,
    "snow": _snow,
    "moonlight": _moonlight,
    "table": _table,
}
