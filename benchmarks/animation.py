"""`python -m benchmarks.animation` makes the README's animation from requests that it really runs.

Eight requests with different prompts, steps, guidance and samplers come in shortly one after the
other. On the left each one waits for the one before it; on the right they share the engine's steps.
Both sides are the same engine and model, run one after the other on this machine. A tile shows what
the newest step of its request had reached.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL, Settings
from runnables.ticket import Progress, Result

APART_S = 0.15
FRAME_S = 0.1
HELD_S = 3.0
TILE, GAP, COLUMNS = 88, 6, 4
HEAD, WIDTH = 46, COLUMNS * (TILE + GAP) + GAP
INK, PAPER, EMPTY = "#1f2430", "#ffffff", "#e6e8ee"
REQUESTS = [
    TextToImage(prompt="a rocket", num_inference_steps=20, guidance_scale=5.0, seed=3),
    TextToImage(prompt="a castle", num_inference_steps=24, guidance_scale=4.0, scheduler="ddim"),
    TextToImage(prompt="a butterfly", num_inference_steps=16, scheduler="euler", seed=26),
    TextToImage(prompt="sunset at the beach", num_inference_steps=20, guidance_scale=3.0),
    TextToImage(prompt="a penguin", num_inference_steps=28, scheduler="euler_a", seed=33),
    TextToImage(prompt="a hamburger", num_inference_steps=18, guidance_scale=6.0, seed=36),
    TextToImage(prompt="snowy mountains", num_inference_steps=20, scheduler="unipc", seed=17),
    TextToImage(prompt="a red heart", num_inference_steps=22, guidance_scale=4.5, seed=11),
]


@dataclass
class Recording:
    """A recording has what each request had reached at which time, in seconds after the first."""

    title: str
    seen: list[list[tuple[float, Image.Image]]] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Images per second, from the first request to the last image."""
        return len(self.ended) / max(self.ended)


def record(runnable: StableDiffusionRunnable, title: str, *, together: bool) -> Recording:
    """Run all requests, and keep every preview."""
    recording = Recording(title, [[] for _ in REQUESTS], [0.0] * len(REQUESTS))
    started, tickets = time.monotonic(), []

    def on_step(number: int) -> Callable[[Progress], None]:
        def keep(progress: Progress) -> None:
            if progress.preview:
                recording.seen[number].append((time.monotonic() - started, progress.preview))

        return keep

    def end(number: int, future: Future[Result]) -> None:
        recording.ended[number] = time.monotonic() - started
        recording.seen[number].append((recording.ended[number], future.result().images[0].image))

    for number, request in enumerate(REQUESTS):
        time.sleep(max(0.0, started + number * APART_S - time.monotonic()))
        ticket = runnable.submit(request, on_step=on_step(number), preview_every=1)
        tickets.append(ticket)
        ticket.future.add_done_callback(partial(end, number))
        if not together:
            ticket.future.result()
    for ticket in tickets:
        ticket.future.result()
    return recording


def frame(recordings: list[Recording], at: float) -> Image.Image:
    """Return both sides as they were at this time."""
    rows = -(-len(REQUESTS) // COLUMNS)
    height = HEAD + rows * (TILE + GAP) + GAP
    canvas = Image.new("RGB", (2 * WIDTH + 3 * GAP, height), PAPER)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for side, recording in enumerate(recordings):
        left = side * (WIDTH + 3 * GAP)
        done = sum(end <= at for end in recording.ended)
        pen.text((left + GAP, 4), recording.title, INK, font)
        over = min(at, max(recording.ended))
        told = f"{done} of {len(REQUESTS)} images after {over:.1f} s"
        if done == len(REQUESTS):
            told += f": {recording.rate:.1f} images/s"
        pen.text((left + GAP, 24), told, INK, font)
        for number, seen in enumerate(recording.seen):
            row, column = divmod(number, COLUMNS)
            corner = (left + GAP + column * (TILE + GAP), HEAD + row * (TILE + GAP))
            shown = [image for when, image in seen if when <= at]
            picture = shown[-1] if shown else Image.new("RGB", (1, 1), EMPTY)
            canvas.paste(picture.resize((TILE, TILE), Image.Resampling.BILINEAR), corner)
    return canvas


def main() -> None:
    """Run both sides, and write the animation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--out", type=Path, default=Path("docs/images/batching.webp"))
    arguments = parser.parse_args()
    runnable = StableDiffusionRunnable(Settings(model=arguments.model))
    runnable.start()
    record(runnable, "warm-up", together=True)
    recordings = [
        record(runnable, "one request at a time", together=False),
        record(runnable, "requests that share every step", together=True),
    ]
    runnable.close()
    for one in recordings:
        print(f"{one.title}: {one.rate:.2f} images/s")
    print(f"ratio {recordings[1].rate / recordings[0].rate:.2f}")
    last = max(max(one.ended) for one in recordings)
    frames = [frame(recordings, step * FRAME_S) for step in range(int(last / FRAME_S) + 2)]
    held = [round(1000 * FRAME_S)] * (len(frames) - 1) + [round(1000 * HELD_S)]
    frames[0].save(
        arguments.out, save_all=True, append_images=frames[1:], duration=held, loop=0, quality=70
    )
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.0f} kB, {len(frames)} frames")


if __name__ == "__main__":
    main()
