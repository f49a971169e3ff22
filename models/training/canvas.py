"""Coordinates, edges and blends that pictures are made of. All arrays are (H, W[, 3]) in 0..1."""

# mypy: disable-error-code="no-any-return"
# (numpy expressions are typed Any in part)
from __future__ import annotations

import random

import numpy as np

Array = np.ndarray


def grid(height: int, width: int) -> tuple[Array, Array]:
    """y and x of the pixels' centres; the shorter side runs from -0.5 to 0.5."""
    unit = min(height, width)
    y = (np.arange(height) + 0.5 - height / 2) / unit
    x = (np.arange(width) + 0.5 - width / 2) / unit
    return tuple(np.meshgrid(y, x, indexing="ij"))  # type: ignore[return-value]


def edge(distance: Array, unit: int) -> Array:
    """Cover 0..1 of a shape whose inside is where distance < 0, blended over about a pixel."""
    return np.clip(0.5 - distance * unit, 0, 1)[..., None]


def mix(back: Array, front: Array, cover: Array) -> Array:
    return (1 - cover) * back + cover * front


def gradient(y: Array, top: tuple[float, ...], bottom: tuple[float, ...]) -> Array:
    t = np.clip(y + 0.5, 0, 1)[..., None]
    return (1 - t) * np.array(top) + t * np.array(bottom)


def ridge(rng: random.Random, x: Array, level: float, swing: float, *, sharp: bool) -> Array:
    """A skyline y(x)."""
    line = np.zeros_like(x)
    for octave in (1, 2, 3):
        wave = rng.uniform(2.0, 3.2) * octave * x + rng.uniform(0, 6.28)
        shape = 1 - 2 * np.abs((wave / np.pi) % 1 * 2 - 1) if sharp else np.sin(wave)
        line = line + shape / octave
    return level + swing * 0.6 * line
