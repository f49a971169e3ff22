"""A bank of composed pictures on disk, which every stage of the training reads."""

# mypy: disable-error-code="no-any-return"
# (numpy expressions are typed Any in part)
from __future__ import annotations

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple
from functools import cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.training import draw
from models.training.canvas import Array
from models.training.sprites import sprites
from models.training.subject import Subject

SIDE, LARGE = 128, 256  # pixels of the model's own size, and of pictures twice as high and wide
ENLARGED = 4000  # pictures of side LARGE
PART = 1000  # pictures that one process composes at a time
THINGS, SCENES = 0.66, 0.5  # share of things in all, and of scenes in the rest


def bank(work: Path, count: int, seed: int, side: int = SIDE) -> tuple[Array, list[Subject]]:
    """(count, side, side, 3) uint8, mapped from disk, and what each picture shows."""
    name = f"bank-{count}" if side == SIDE else f"bank-{count}-{side}"
    path, labels = work / f"{name}.npy", work / f"{name}.json"
    if not labels.exists():
        sprites(work)
        shape = (count, side, side, 3)
        made = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        subjects: list[Subject] = []
        with ProcessPoolExecutor() as pool:
            parts = pool.map(
                partial(compose, work, f"bank {seed}", side=side), range(-(-count // PART))
            )
            for pixels, shown in tqdm(parts, "bank", total=-(-count // PART)):
                first = len(subjects)
                made[first : first + PART] = pixels[: count - first]
                subjects += shown[: count - first]
        made.flush()
        labels.write_text(json.dumps([astuple(one) for one in subjects]))
    stored = [Subject(*fields) for fields in json.loads(labels.read_text())]
    return np.load(path, mmap_mode="r"), stored


def compose(work: Path, name: str, part: int, side: int = SIDE) -> tuple[Array, list[Subject]]:
    """PART pictures and their subjects; the name and the part decide which."""
    rng = random.Random(f"{name} {part}")
    subjects = [draw.subject(rng, SCENES, THINGS) for _ in range(PART)]
    pictures = [draw.render(one, rng, side, side, _sprites(work)) for one in subjects]
    return (np.stack(pictures) * 255).round().astype(np.uint8), subjects


_sprites = cache(sprites)
