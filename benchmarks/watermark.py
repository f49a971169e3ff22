"""`python -m benchmarks.watermark FOLDER`: false positives and survival of the watermark.

The pictures are those of a folder, and squares cut out of them at random, mirrored at random, in
512x512. Every one is read unmarked and marked, and marked after JPEG and after another size.
"""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from runnables.images import watermark

SIDE = 512
KEY = "benchmarks.watermark"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watermark", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--unmarked", type=int, default=1000)
    parser.add_argument("--marked", type=int, default=200)
    chosen = parser.parse_args()
    files = sorted(path for path in chosen.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    rng = np.random.default_rng(0)
    print(f"{len(files)} files")
    _count_false(cut(files, chosen.unmarked, rng))
    _count_found(cut(files, chosen.marked, rng))


def cut(files: list[Path], count: int, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Yield so many pictures of SIDE x SIDE, the files in turn."""
    pictures = [Image.open(file).convert("RGB") for file in files]
    for number in range(count):
        whole = pictures[number % len(pictures)]
        side = round(min(whole.size) * rng.uniform(0.6, 1.0))
        left, top = (int(rng.integers(0, free - side + 1)) for free in whole.size)
        box = (left, top, left + side, top + side)
        square = whole.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box)
        yield ImageOps.mirror(square) if rng.random() < 0.5 else square


def _count_false(pictures: Iterator[Image.Image]) -> None:
    scores = [watermark.score(picture, KEY) for picture in pictures]
    false = sum(score > watermark.FOUND for score in scores)
    print(f"unmarked: {false} of {len(scores)} found, highest score {max(scores):.1f}")


def _count_found(pictures: Iterator[Image.Image]) -> None:
    found: Counter[str] = Counter()
    largest, means = 0, []
    for picture in pictures:
        marked = watermark.mark(picture, KEY)
        change = np.abs(np.asarray(marked).astype(int) - np.asarray(picture))
        largest = max(largest, int(change.max()))
        means.append(float(change.mean()))
        for name, seen in _attacked(marked).items():
            found[name] += watermark.score(seen, KEY) > watermark.FOUND
    print(f"change: at most {largest} of 255, mean {np.mean(means):.2f}, at most {max(means):.2f}")
    for name, count in found.items():
        print(f"{name}: {count} of {len(means)} found")


def _attacked(image: Image.Image) -> dict[str, Image.Image]:
    smaller = image.resize((SIDE * 3 // 4, SIDE * 3 // 4), Image.Resampling.LANCZOS)
    return {
        "PNG": image,
        "JPEG 80": _jpeg(image, 80),
        "75%": smaller,
        "75%, JPEG 80": _jpeg(smaller, 80),
        "JPEG 50": _jpeg(image, 50),
        "50%": image.resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC),
    }


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


if __name__ == "__main__":
    main()
