"""`python -m benchmarks.quantization --model M component:kind ...`: 8-bit weights, compared.

Each line has one value of SD_QUANTIZE: the bytes of all weights, seconds per step, and how far its
images are from those of the unquantised model (PSNR over all pixels, and the largest difference).
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL, Settings

PROMPTS = ("a red circle", "two blue squares", "a green triangle on a yellow background")
HEAD = "| SD_QUANTIZE | weights, MB | PSNR, dB | largest difference of 255 | seconds per step |"


class Arm:
    """An arm is a model with one value of SD_QUANTIZE, and the images that it generates."""

    def __init__(self, model: str, quantize: str, steps: int, size: int) -> None:
        self.name = quantize or "(none)"
        runnable = StableDiffusionRunnable(Settings(model=model, quantize=quantize, threads=1))
        runnable.start()
        self.megabytes = _bytes(runnable) / 1e6
        self._size = {"height": size, "width": size} if size else {}
        images, seconds = [], 0.0
        for seed, prompt in enumerate(PROMPTS):
            asked = TextToImage(prompt=prompt, seed=seed, num_inference_steps=steps, **self._size)
            result = runnable.txt2img(asked)
            seconds += result.timings["denoise"]
            images.append(np.asarray(result.images[0].image).astype(np.float64))
        self.step_s = seconds / steps / len(PROMPTS)
        self.pixels: NDArray[np.float64] = np.stack(images)
        runnable.close()

    def line(self, plain: Arm) -> str:
        """Return the arm's line of the table."""
        difference = np.abs(self.pixels - plain.pixels)
        mean = float((difference**2).mean())
        psnr = f"{10 * np.log10(255**2 / mean):.1f}" if mean else "-"
        return (
            f"| `{self.name}` | {self.megabytes:.1f} | {psnr} | {difference.max():.0f} "
            f"| {self.step_s:.3f} |"
        )


def _bytes(runnable: StableDiffusionRunnable) -> int:
    assert runnable._pool is not None
    return runnable._pool.first.nbytes


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("quantize", nargs="*", default=["unet:int8", "unet:fp8"])
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=0, help="pixels; default: the native size")
    chosen = parser.parse_args()
    plain = Arm(chosen.model, "", chosen.steps, chosen.size)
    print(f"{HEAD}\n|---|---|---|---|---|\n{plain.line(plain)}", flush=True)
    for quantize in chosen.quantize:
        print(Arm(chosen.model, quantize, chosen.steps, chosen.size).line(plain), flush=True)


if __name__ == "__main__":
    main()
