"""`python -m benchmarks.gpu` measures correctness and speed on a GPU, with random weights.

It needs only torch, diffusers, transformers, pillow, pydantic-settings and what these need. For
each architecture it compares the engine's images with diffusers' own, in fp32 and in half
precision. Then it reports bare diffusers, one image at a time, eager and with compiled blocks, and
the engine eager, with CUDA graphs, with compiled blocks and with both, at 1, 4 and 16 clients:
images per second, latencies, the share of the measured matrix-product rate (MFU) and the peak of
the arm's memory, all on one device in one run. Each architecture has a process of its own and an
equal part of the time that is left (--seconds). What compiles comes last in it; an arm that would
begin later is named and left out, and one that lasts longer is stopped.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import random_models
from benchmarks.figures import closed, psnr, seconds_of
from runnables.accelerators import choose
from runnables.accelerators.base import Accelerator
from runnables.assembly import Models, family_of, warm_up
from runnables.engine.engine import Engine
from runnables.engine.model_pool import ModelPool
from runnables.families.base import Family
from runnables.parameters import TextToImage
from runnables.settings import Settings
from runnables.ticket import Inputs, Progress, Ticket

SIZE = {"sd15": 512, "sdxl": 1024, "sd35-medium": 1024, "tiny": 64, "tiny-sd3": 64}
STEPS = 20
HEAD = "| model | precision | arm | images/s | ratio | p50 s | p95 s | MFU | peak GB |"
#: the engine's arms: what is set
ENGINES: dict[str, dict[str, Any]] = {
    "eager": {},
    "graphs": {"cuda_graphs_mb": 16_000},
    "regional": {"compile": "regional"},
    "regional, graphs": {"compile": "regional", "cuda_graphs_mb": 16_000},
}


def settings(device: str, precision: str, **options: Any) -> Settings:
    """Return the settings of an arm."""
    return Settings.model_validate(
        {
            "device": device,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "max_queue_s": 1e6,
            "request_timeout_s": 1e6,
            "safety": "off",
            **options,
        }
    )


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Return the FLOP per second of a size x size matrix product on random data, the peak."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    _wait(device)
    started = time.perf_counter()
    for _ in range(10):
        left @ right
    _wait(device)
    return 10 * 2 * size**3 / (time.perf_counter() - started)


def request(name: str, seed: int) -> TextToImage:
    """Return the request of this seed at the architecture's native size."""
    return TextToImage(
        prompt=f"a cat {seed}",
        seed=seed,
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        scheduler="euler",
        height=SIZE[name],
        width=SIZE[name],
    )


class Bare:
    """This arm is diffusers' own pipeline, one image at a time."""

    def __init__(self, name: str, device: str, precision: str) -> None:
        accelerator = choose(settings(device, precision))
        self.name = name
        self.device, self.dtype = accelerator.device, accelerator.dtype
        self._pipeline = random_models.bare_pipeline(name, self.device, self.dtype)

    def compile(self) -> None:
        """Compile the denoiser's repeated blocks, as diffusers recommends."""
        flow = "transformer" in self._pipeline.components
        denoiser = self._pipeline.transformer if flow else self._pipeline.unet
        denoiser.compile_repeated_blocks(fullgraph=True)

    def rate(self, images: int) -> float:
        """Return the images per second, after one that is not counted."""
        self.image(0)
        return images / sum(seconds_of(partial(self.image, seed)) for seed in range(images))

    @torch.inference_mode()
    def image(self, seed: int, steps: int | None = None) -> Any:
        """Return the image of this seed, (H, W, 3) in 0..1."""
        asked = request(self.name, seed)
        return self._pipeline(
            prompt=asked.prompt,
            num_inference_steps=steps or STEPS,
            guidance_scale=7.5,
            height=asked.height,
            width=asked.width,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="np",
        ).images[0]

    def flop(self) -> float:
        """Return the FLOP of one image, counted on the real modules.

        Two runs of one and of two steps tell a step's share from that of text and decode.
        """
        one, two = (self._counted(steps) for steps in (1, 2))
        return one + (STEPS - 1) * (two - one)

    def _counted(self, steps: int) -> float:
        with FlopCounterMode(display=False) as counter:
            self.image(0, steps)
        return float(counter.get_total_flops())


class Served:
    """This arm is the engine; the time from its modules on the device to its first image counts.

    Attributes:
        cold_s: seconds of preparing, warming up and the first image.
    """

    def __init__(self, name: str, device: str, precision: str, **options: Any) -> None:
        wanted = settings(device, precision, **options)
        self.name = name
        accelerator: Accelerator = choose(wanted)
        checkpoint = random_models.checkpoint(name, accelerator.device, accelerator.dtype)
        started = time.perf_counter()
        family: Family = family_of(checkpoint, accelerator)
        accelerator.prepare(family)
        model = Models(wanted, accelerator, family.traits.family).make(family)
        with accelerator.session():
            warm_up(model, accelerator)
        self._engine = Engine(ModelPool(model), accelerator)
        self._engine.start()
        self.image(0)
        self.cold_s = time.perf_counter() - started

    def image(self, seed: int) -> Any:
        """Return the image of this seed, (H, W, 3) uint8."""
        return np.asarray(self._submit(seed).future.result().images[0].image)

    def latencies(self, clients: int, images: int) -> tuple[float, list[float]]:
        """Return images per second, and every image's seconds, with so many clients."""
        every, seconds = closed(
            lambda seed: seconds_of(self._submit(seed).future.result), range(images), clients
        )
        return images / seconds, every

    def newcomers(self, count: int) -> list[float]:
        """Return the seconds until the first step of images that arrive beside four others."""
        waits: list[float] = []
        running = [self._submit(seed) for seed in range(4)]
        for seed in range(count):
            first = threading.Event()
            started = time.perf_counter()
            running.append(self._submit(seed, partial(_set, first)))
            first.wait(60)
            waits.append(time.perf_counter() - started)
        for ticket in running:
            ticket.future.result()
        return waits

    def close(self) -> None:
        self._engine.close()

    def _submit(self, seed: int, on_step: Callable[[Progress], None] | None = None) -> Ticket:
        ticket = Ticket(request(self.name, seed))
        ticket.on_step = on_step
        self._engine.submit(ticket, Inputs())
        return ticket


def difference(images: Sequence[Any], expected: Sequence[Any]) -> str:
    """Return the largest and the mean difference of a value, of 255, and the PSNR in dB."""
    pairs = zip(images, expected, strict=True)
    apart = np.stack([image.astype(float) - (one * 255).round() for image, one in pairs])
    far = np.abs(apart)
    return f"largest {far.max():.0f}, mean {far.mean():.3f}, {psnr(apart):.1f} dB"


class Report:
    """A report has the rows of one architecture in one precision, each printed when it is known.

    An arm's memory is what it takes beside the weights of others, which stay on the device.

    Args:
        until: time.perf_counter at which no further arm begins.
    """

    def __init__(self, name: str, device: str, precision: str, images: int, until: float) -> None:
        self._given = name, device, precision
        self._head = f"| {name} {SIZE[name]} | {precision} |"
        self._images, self._until = images, until
        self.rows: list[str] = []

    def run(
        self, engines: Sequence[str], *, speed: bool = True, clients: Sequence[int] = (1, 4, 16)
    ) -> list[str]:
        """Compare with diffusers, and measure the speed of both where it is wanted."""
        self._clients = clients
        self._others = own = _allocated_bytes()
        bare = Bare(*self._given)
        expected = [bare.image(seed) for seed in range(3)]
        if speed:
            size = 256 if bare.device.type == "cpu" else 8192
            self._peak = matmul_rate(bare.device, bare.dtype, size)
            self._flop = bare.flop()
            self._add("matmul peak", f"{self._peak / 1e12:.1f} TFLOP/s")
            _reset_peak()
            self._bare_rate = bare.rate(self._images)
            self._add_rate("diffusers, eager", self._bare_rate)
        compiling = [one for one in engines if "compile" in ENGINES[one]]
        for engine in engines:
            if speed and engine in compiling[:1] and self._has_time("diffusers, compiled blocks"):
                bare.compile()
                self._others = own
                _reset_peak()
                self._add_rate("diffusers, compiled blocks", bare.rate(self._images))
            self._serve(engine, expected, speed)
        return self.rows

    def _serve(self, engine: str, expected: Sequence[Any], speed: bool) -> None:
        if not self._has_time(f"engine, {engine}"):
            return
        self._others = _allocated_bytes()
        _reset_peak()
        served = Served(*self._given, **ENGINES[engine])
        try:
            images = [served.image(seed) for seed in range(len(expected))]
            self._add(f"engine, {engine}: difference of 255", difference(images, expected))
            self._add(f"engine, {engine}: until the first image", f"{served.cold_s:.1f} s")
            if not speed:
                return
            for clients in self._clients:
                served.latencies(clients, clients)  # captures what is captured when first used
                rate, seconds = served.latencies(clients, max(self._images, 2 * clients))
                self._add_rate(f"engine, {engine}, {clients} clients", rate, seconds)
            waits = served.newcomers(8)
            middle, longest = np.median(waits), max(waits)
            self._add(
                f"engine, {engine}: first step of newcomers",
                f"median {middle:.3f} s, longest {longest:.3f} s",
            )
        finally:
            served.close()
            del served
            gc.collect()

    def _has_time(self, arm: str) -> bool:
        left = time.perf_counter() < self._until
        if not left:
            self._add(arm, "left out: the time is up")
        return left

    def _add(self, arm: str, value: str) -> None:
        self._print(f"{self._head} {arm} | {value} | | | | | |")

    def _add_rate(self, arm: str, rate: float, seconds: Sequence[float] = ()) -> None:
        p50, p95 = (
            (f"{np.percentile(seconds, share):.2f}" for share in (50, 95)) if seconds else ("", "")
        )
        mfu, peak = rate * self._flop / self._peak, (_peak_bytes() - self._others) / 1e9
        self._print(
            f"{self._head} {arm} | {rate:.2f} | {rate / self._bare_rate:.2f} | {p50} | {p95} "
            f"| {mfu:.0%} | {peak:.1f} |"
        )

    def _print(self, row: str) -> None:
        self.rows.append(row)
        print(row, flush=True)


def _set(event: threading.Event, _: Progress) -> None:
    event.set()


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _allocated_bytes() -> int:
    return int(torch.cuda.memory_allocated()) if torch.cuda.is_available() else 0


def _peak_bytes() -> int:
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(name: str, chosen: argparse.Namespace, seconds: float) -> None:
    """Print the rows of one architecture."""
    until, given = time.perf_counter() + seconds, (name, chosen.device)
    if chosen.precision != "fp32":
        Report(*given, "fp32", chosen.images, until).run(["eager"], speed=False)
    report = Report(*given, chosen.precision, chosen.images, until)
    report.run(chosen.engines, clients=chosen.clients)


def bounded(seconds: float, call: Callable[..., None], *given: Any) -> bool:
    """Run a call in a process of its own; return whether it ended well within its time."""
    process = multiprocessing.get_context("spawn").Process(target=call, args=given)
    process.start()
    process.join(seconds)
    ended = process.exitcode is not None
    if not ended:
        process.kill()
        process.join()
    return ended and process.exitcode == 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--models", nargs="*", default=["sd15", "sdxl", "sd35-medium"], choices=list(SIZE)
    )
    parser.add_argument("--precision", default="fp16", help="of the speeds; fp32 is compared too")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--clients", nargs="*", type=int, default=[1, 4, 16])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=480.0, help="of the whole run")
    chosen = parser.parse_args(arguments)
    until = time.perf_counter() + chosen.seconds
    on_gpu = chosen.device == "cuda" and torch.cuda.is_available()
    print(torch.cuda.get_device_name() if on_gpu else "CPU")
    print(HEAD + "\n" + "|---" * HEAD.count(" |") + "|", flush=True)
    for done, name in enumerate(chosen.models):
        share = (until - time.perf_counter()) / (len(chosen.models) - done)
        if not bounded(share, measure, name, chosen, share):
            print(f"| {name} {SIZE[name]} | | stopped: it failed, or its time is up | | | | | | |")


if __name__ == "__main__":
    main()
