"""`python -m benchmarks.accelerations` shows what each option gains, and how it changes images.

All variants generate the same prompts and seeds in one shared batch, in turn. The report has the
median ratio of the seconds to those of the plain request in the same round, and the distance of the
images from the plain ones.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import psnr, seconds_of
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL, Settings

PROMPTS = (
    "View of a cyberpunk city",
    "a red circle on a blue background",
    "mountains at sunset",
    "a green square on a white background",
)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "guidance_interval [0, 0.5]": {"guidance_interval": (0.0, 0.5)},
    "guidance_interval [0.2, 0.8]": {"guidance_interval": (0.2, 0.8)},
    "deep_cache_interval 2": {"deep_cache_interval": 2},
    "deep_cache_interval 3": {"deep_cache_interval": 3},
    "deep_cache_interval 5": {"deep_cache_interval": 5},
    "interval [0, 0.5] and deep cache 3": {
        "guidance_interval": (0.0, 0.5),
        "deep_cache_interval": 3,
    },
}
Pixels = np.ndarray[Any, np.dtype[np.float64]]


def generate(runnable: StableDiffusionRunnable, steps: int, options: dict[str, Any]) -> Pixels:
    """Generate two images of each prompt, all in one batch: (N, H, W, 3), 0 to 255."""
    tickets = [
        runnable.submit(
            TextToImage(
                prompt=prompt,
                seed=7,
                num_inference_steps=steps,
                guidance_scale=4.0,
                num_images_per_prompt=2,
                **options,
            )
        )
        for prompt in PROMPTS
    ]
    results = [ticket.future.result() for ticket in tickets]
    return np.stack([np.asarray(d.image, float) for result in results for d in result.images])


def run(model: Path, *, steps: int, rounds: int) -> list[str]:
    """Return the report's lines."""
    plain = StableDiffusionRunnable(Settings(model=str(model), max_queue_s=1e6))
    half = StableDiffusionRunnable(Settings(model=str(model), precision="bf16", max_queue_s=1e6))
    variants = {
        name: partial(generate, plain, steps, options) for name, options in VARIANTS.items()
    }
    variants["SD_PRECISION=bf16"] = partial(generate, half, steps, {})
    for runnable in (plain, half):
        runnable.start()
    try:
        images = {name: variant() for name, variant in variants.items()}
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(rounds):
            for name, variant in variants.items():
                seconds[name].append(seconds_of(variant))
    finally:
        for runnable in (plain, half):
            runnable.close()
    return [HEADER, *(_line(name, seconds, images) for name in variants)]


HEADER = (
    "| variant | seconds | faster, ratio | mean change, of 255 | PSNR, dB |\n|---|---|---|---|---|"
)


def _line(name: str, seconds: dict[str, list[float]], images: dict[str, Pixels]) -> str:
    pairs = zip(seconds["plain"], seconds[name], strict=True)
    gain = statistics.median(plain / variant for plain, variant in pairs)
    change = images[name] - images["plain"]
    near = f"{psnr(change):.1f}" if change.any() else "same"
    return (
        f"| {name} | {statistics.median(seconds[name]):.2f} | {gain:.2f} "
        f"| {np.abs(change).mean():.2f} | {near} |"
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerations", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(EMBEDDED_MODEL))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("\n".join(run(arguments.model, steps=arguments.steps, rounds=arguments.rounds)))


if __name__ == "__main__":
    main()
