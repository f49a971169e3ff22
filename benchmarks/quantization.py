"""`python -m benchmarks.quantization --model M component:kind ...`: 8-bit weights, compared.

Each line has one value of SD_QUANTIZE: the bytes of all weights, the peak memory of its process,
processor seconds per step, which other programs hardly change, and how far its images are from
those of the unquantised model (PSNR over all pixels, and the largest difference). `--random sdxl`
or `--random sd-3-medium` compares models of those sizes with random weights, in bf16:
`--size 256 --steps 2` takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import psnr
from benchmarks.random_models import build
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL, Settings

P = ParamSpec("P")
T = TypeVar("T")
KINDS = ("sdxl", "sd-3-medium")
PROMPTS = ("a red circle", "two blue squares", "a green triangle on a yellow background")
COLUMNS = (
    "SD_QUANTIZE",
    "weights, MB",
    "peak memory, MB",
    "PSNR, dB",
    "largest difference of 255",
    "processor seconds per step",
)


@dataclass(frozen=True)
class Task:
    """A task is what all arms have in common."""

    model: str
    precision: str
    steps: int
    size: int
    images: int
    threads: int


@dataclass(frozen=True)
class Arm:
    """An arm is a model with one value of SD_QUANTIZE, and what was measured."""

    name: str
    megabytes: float
    peak: float
    step_s: float
    pixels: NDArray[np.float64]

    def line(self, plain: Arm) -> str:
        """Return the arm's line of the table."""
        difference = np.abs(self.pixels - plain.pixels)
        near = f"{psnr(difference):.1f}" if difference.any() else "-"
        return (
            f"| `{self.name}` | {self.megabytes:.1f} | {self.peak:.0f} | {near} "
            f"| {difference.max():.0f} | {self.step_s:.3f} |"
        )


def measure(quantize: str, task: Task) -> Arm:
    """Generate the images with one value of SD_QUANTIZE, in this process."""
    settings = Settings(
        model=task.model,
        quantize=quantize,
        threads=task.threads,
        precision=task.precision,
        t5=False,
    )
    runnable = StableDiffusionRunnable(settings)
    runnable.start()
    assert runnable._pool is not None and runnable._engine is not None
    seconds = timed(runnable._engine._accelerator)
    size = {"height": task.size, "width": task.size} if task.size else {}
    images = []
    for seed, prompt in enumerate(PROMPTS[: task.images]):
        asked = TextToImage(prompt=prompt, seed=seed, num_inference_steps=task.steps, **size)
        result = runnable.txt2img(asked)
        images.append(np.asarray(result.images[0].image).astype(np.float64))
    megabytes = runnable._pool.first.nbytes / 1e6
    runnable.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    step_s = sum(seconds) / task.steps / len(images)
    return Arm(quantize or "(none)", megabytes, peak, step_s, np.stack(images))


def timed(accelerator: Any) -> list[float]:
    """Return a list that gets the processor seconds, of all threads, of each denoiser call."""
    seconds: list[float] = []
    denoise = accelerator.denoise

    def call(*given: Any, **named: Any) -> Any:
        begun = time.process_time()
        output = denoise(*given, **named)
        seconds.append(time.process_time() - begun)
        return output

    accelerator.denoise = call
    return seconds


def compare(quantize: list[str], task: Task) -> None:
    """Print the table."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    plain = alone(measure, "", task)
    print(plain.line(plain), flush=True)
    for one in quantize:
        print(alone(measure, one, task).line(plain), flush=True)


def alone(call: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Return what a call returns in a process of its own, so that the memory is its alone."""
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        return processes.submit(call, *given, **named).result()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("quantize", nargs="*", help="default: the denoiser in int8, and in fp8")
    parser.add_argument("--model", default=str(EMBEDDED_MODEL))
    parser.add_argument("--random", choices=KINDS, help="instead of a model: random weights")
    parser.add_argument("--folder", type=Path, help="where random weights are kept; default: /tmp")
    parser.add_argument("--precision", help="default: fp32; bf16 with --random")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=0, help="pixels; default: the native size")
    parser.add_argument("--images", type=int, default=len(PROMPTS))
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    model, precision = chosen.model, chosen.precision or ("bf16" if chosen.random else "fp32")
    if chosen.random:
        folder = chosen.folder or Path(tempfile.gettempdir())
        built = alone(build, chosen.random, folder / f"random-{chosen.random}")
        if chosen.size:  # else the warm-up takes minutes, at the native size
            profile = {"height": chosen.size, "width": chosen.size}
            (built / "profile.json").write_text(json.dumps(profile))
        model = str(built)
    denoiser = "transformer" if chosen.random == "sd-3-medium" else "unet"
    quantize = chosen.quantize or [f"{denoiser}:int8", f"{denoiser}:fp8"]
    compare(
        quantize, Task(model, precision, chosen.steps, chosen.size, chosen.images, chosen.threads)
    )


if __name__ == "__main__":
    main()
