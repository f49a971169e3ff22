"""`python -m benchmarks.latency` measures one client's wait over HTTP, and the engine's share.

The bare pipeline and the service generate the same image in turn; the report has the median ratio
of the pairs. A second table has the share of a step that is not the denoiser, by batch size.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from benchmarks.figures import seconds_of
from benchmarks.host import post, served
from runnables import accelerators
from runnables.assembly import Models
from runnables.engine import denoise
from runnables.engine.batch import Batch
from runnables.engine.prepare import Preparer
from runnables.parameters import TextToImage
from runnables.settings import EMBEDDED_MODEL, Settings
from runnables.ticket import Inputs, Ticket

REQUEST = {
    "prompt": "View of a cyberpunk city",
    "seed": 1,
    "num_inference_steps": 20,
    "guidance_scale": 4.0,
}
STEPS = 15


def one_client(model: str, pairs: int) -> str:
    """Report the seconds of the bare pipeline (image in memory) and the service (JPEG received)."""
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    bare, http = [], []
    with served(model) as (url, _):
        for pair in range(pairs + 1):
            seconds = (
                seconds_of(lambda: _draw(pipeline)),
                seconds_of(lambda: post(url, REQUEST)),
            )
            if pair:  # the first warms up
                bare.append(seconds[0])
                http.append(seconds[1])
    ratio = statistics.median(b / a for a, b in zip(bare, http, strict=True))
    return (
        "| | bare pipeline | service over HTTP | ratio |\n|---|---|---|---|\n"
        f"| median seconds per image | {statistics.median(bare):.3f} "
        f"| {statistics.median(http):.3f} | {ratio:.2f} |"
    )


def own_share(model: str) -> str:
    """Report, per batch size, milliseconds of a step and the share spent outside the denoiser."""
    settings = Settings(model=model)
    accelerator: Any = accelerators.choose(settings)
    loaded = Models(settings, accelerator).read_first()
    accelerator.prepare(loaded.base)
    lines = ["| images in a step | step, ms | outside the denoiser |", "|---|---|---|"]
    for images in (1, 4, 8):
        with accelerator.session():
            ask = TextToImage(prompt="x", seed=0, num_images_per_prompt=images)
            rows = Preparer(0).at_once(denoise.plan(loaded, Ticket(ask), Inputs()))
            batch = Batch(rows, accelerator)
            inside: list[float] = []
            call = accelerator.denoise

            def timed(*arguments: Any, call: Any = call, inside: Any = inside) -> Any:
                started = time.perf_counter()
                output = call(*arguments)
                inside.append(time.perf_counter() - started)
                return output

            accelerator.denoise = timed
            whole = [seconds_of(batch.step) for _ in range(STEPS)]
            accelerator.denoise = call
        share = statistics.median(1 - a / b for a, b in zip(inside, whole, strict=True))
        lines.append(f"| {images} | {1000 * statistics.median(whole):.1f} | {share:.1%} |")
    return "\n".join(lines)


def _draw(pipeline: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    pipeline(REQUEST["prompt"], num_inference_steps=20, guidance_scale=4.0, generator=generator)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--pairs", type=int, default=15)
    chosen = parser.parse_args()
    print(one_client(chosen.model, chosen.pairs), "\n", flush=True)
    print(own_share(chosen.model))


if __name__ == "__main__":
    main()
