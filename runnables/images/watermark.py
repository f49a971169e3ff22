"""An imperceptible watermark: the signs of many low cosine coefficients of an image's brightness.

A key decides a sign for each of some 20,000 coefficients of the discrete cosine transform, whose
waves are counted per image and not per pixel: another size of the image changes none of them.
Marking turns those coefficients whose sign is the other one, the cheapest first, as long as the
change stays small. Reading counts signs. In an unmarked image they agree as thrown coins do,
whatever the image shows, because the key knows nothing of it; Hoeffding's inequality bounds the
probability of a score over `FOUND` by exp(-FOUND^2 / 2), which is 2e-11.

Choosing among the image's own coefficients is informed embedding (Cox, Miller and Bloom, Digital
Watermarking, chapter 5).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

LOW, HIGH = 24, 176  # half waves per image that carry the mark
LEAST = 4  # half waves along each side: what edges and frames are made of carries nothing
FITS = 0.8  # the share of a side's half waves that its pixels can carry
MARGIN = 6.0  # by which a coefficient has its sign, in an image of 512x512
STRENGTH = 1.1  # root mean square of the change, of 255
MOST = 3  # largest change of a pixel, of 255
PASSES = 2  # the second one mends what clipping at black and white has taken
NOISE = 0.25  # a coefficient that is smaller says nothing
FOUND = 7.0
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in JPEG


def mark(image: Image.Image, key: str) -> Image.Image:
    """Return an RGB image with the key's mark; no value of a pixel differs by more than `MOST`."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    height, width, _ = pixels.shape
    signs, carriers = _signs(key), _carriers(height, width)
    down, across = _waves(height), _waves(width)
    margin = MARGIN * np.sqrt(height * width) / 512
    change = np.zeros((height, width), np.float32)
    for _ in range(PASSES):
        left = STRENGTH**2 * height * width - float((change**2).sum())
        found = down @ (_changed(pixels, change) @ BRIGHTNESS) @ across.T
        need = np.where(carriers, np.maximum(0, margin - signs * found), 0)
        turned = np.where(_cheapest(need**2, left), need * signs, 0).astype(np.float32)
        change = np.clip(change + down.T @ turned @ across, -MOST, MOST)
    return Image.fromarray(_changed(pixels, change).astype(np.uint8))


def score(image: Image.Image, key: str) -> float:
    """Return how many standard deviations more signs agree than by chance; the mark is over 7."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    height, width, _ = pixels.shape
    found = _waves(height) @ (pixels @ BRIGHTNESS) @ _waves(width).T
    counted = _carriers(height, width) & (np.abs(found) > NOISE)
    agreeing = np.sign(found[counted]) * _signs(key)[counted]
    return float(agreeing.sum() / np.sqrt(max(1, agreeing.size)))


def _changed(pixels: Floats, change: Floats) -> Floats:
    """Return the pixels as they are stored: whole numbers from 0 to 255."""
    return np.asarray(np.clip(pixels + np.round(change)[..., None], 0, 255), np.float32)


def _cheapest(costs: Floats, budget: float) -> NDArray[np.bool_]:
    """Return which of the costs, the least first, fit into a budget together."""
    ordered = np.argsort(costs, axis=None)
    fits = np.cumsum(costs.ravel()[ordered], dtype=np.float64) <= budget
    chosen = np.zeros(costs.size, bool)
    chosen[ordered[fits]] = True
    return chosen.reshape(costs.shape)


def _signs(key: str) -> Floats:
    """Return the key's sign, 1 or -1, of each coefficient (HIGH, HIGH)."""
    drawn = hashlib.shake_256(key.encode()).digest(HIGH * HIGH // 8)
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(HIGH, HIGH)
    return np.asarray(bits, np.float32) * 2 - 1


def _carriers(height: int, width: int) -> NDArray[np.bool_]:
    """Return which coefficients (HIGH, HIGH) carry the mark in an image of this size."""
    down, across = np.ogrid[:HIGH, :HIGH]
    radius = np.hypot(down, across)
    inside = (np.minimum(down, across) >= LEAST) & (radius >= LOW) & (radius < HIGH)
    return np.asarray(inside & (down < FITS * height) & (across < FITS * width))


@lru_cache(maxsize=8)
def _waves(count: int) -> Floats:
    """Return the first HIGH rows of the orthonormal DCT-II of so many values: (HIGH, count)."""
    angles = np.outer(np.arange(HIGH), (np.arange(count) + 0.5) * np.pi / count)
    return np.asarray(np.sqrt(2 / count) * np.cos(angles), np.float32)
