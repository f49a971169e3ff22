"""`python -m benchmarks.gpu` measures correctness and speed on a GPU, with random weights.

It needs only torch, diffusers, transformers, pillow and pydantic. For each architecture it compares
the engine's images with diffusers' own in fp32 and in half precision. Then it reports images per
second of the engine at 1, 4 and 16 clients, and of bare diffusers one at a time, on the same GPU in
the same run, and the share of the measured matrix-product rate (MFU).
"""

from __future__ import annotations

import argparse
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import architectures
from runnables.accelerators import choose
from runnables.accelerators.base import Accelerator
from runnables.assembly import Models, family_of, warm_up
from runnables.engine.engine import Engine
from runnables.engine.model_pool import ModelPool
from runnables.families.base import Family
from runnables.parameters import TextToImage
from runnables.ticket import Inputs, Ticket

SIZE = {"sd15": 512, "sdxl": 1024, "tiny": 64}
STEPS = 20


def settings(device: str, precision: str, compile: bool) -> Any:
    """Return the settings the engine reads, without the environment."""
    return SimpleNamespace(
        device=device,
        precision=precision,
        compile=compile,
        threads=0,
        max_batch=0,
        max_queue_s=1e9,
        request_timeout_s=1e9,
        max_pixels=4096 * 4096,
        prompt_cache=64,
        safety="off",
        preview_vae=None,
        lora_dir=None,
        controlnet_dir=None,
        embeddings_dir=None,
        upscaler_dir=None,
        adapters_memory_mb=0,
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


class Arm:
    """An arm is one architecture in one precision: the engine, and diffusers around its modules."""

    def __init__(self, name: str, device: str, precision: str, compile: bool) -> None:
        options = settings(device, precision, compile)
        self.name = name
        self.accelerator: Accelerator = choose(options)
        checkpoint = architectures.build(name, self.accelerator.device, self.accelerator.dtype)
        self.bare = architectures.bare_pipeline(checkpoint)
        self.family: Family = family_of(checkpoint, self.accelerator)
        self.flop = self._flop()
        self.accelerator.prepare(self.family)
        model = Models(options, self.accelerator, self.family.traits.family).make(self.family)
        with self.accelerator.session():
            warm_up(model, self.accelerator)
        self.engine = Engine(ModelPool(model), self.accelerator)
        self.engine.start()

    def difference(self) -> int:
        """Return the largest difference of a pixel, of 255, from diffusers' images."""
        tickets = [self._submit(seed) for seed in range(3)]
        worst = 0
        for seed, ticket in enumerate(tickets):
            generated = np.asarray(ticket.future.result().images[0].image).astype(int)
            expected = (self._bare(seed) * 255).round().astype(int)
            worst = max(worst, int(np.abs(generated - expected).max()))
        return worst

    def bare_rate(self, images: int) -> float:
        """Return the images per second of diffusers, one at a time."""
        self._bare(0)
        started = time.perf_counter()
        for seed in range(images):
            self._bare(seed)
        return images / (time.perf_counter() - started)

    def engine_rate(self, clients: int, images: int) -> tuple[float, float]:
        """Return images per second, and median latency, with so many clients."""
        self._submit(0).future.result()
        latencies: list[float] = []
        seeds = iter(range(images))
        lock = threading.Lock()

        def client() -> None:
            while True:
                with lock:
                    seed = next(seeds, None)
                if seed is None:
                    return
                started = time.perf_counter()
                self._submit(seed).future.result()
                latencies.append(time.perf_counter() - started)

        started = time.perf_counter()
        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return images / (time.perf_counter() - started), float(np.median(latencies))

    def close(self) -> None:
        self.engine.close()

    def _submit(self, seed: int) -> Ticket:
        ticket = Ticket(request(self.name, seed))
        self.engine.submit(ticket, Inputs())
        return ticket

    @torch.inference_mode()
    def _bare(self, seed: int) -> Any:
        ask = request(self.name, seed)
        return self.bare(
            prompt=ask.prompt,
            num_inference_steps=STEPS,
            guidance_scale=7.5,
            height=ask.height,
            width=ask.width,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="np",
        ).images[0]

    @torch.inference_mode()
    def _flop(self) -> float:
        """Return the FLOP of one image.

        It is counted on the real modules: all guided denoiser calls, and the decode.
        """
        counter = FlopCounterMode(display=False)
        with counter:
            self.bare(
                prompt="a cat",
                num_inference_steps=1,
                guidance_scale=7.5,
                height=SIZE[self.name],
                width=SIZE[self.name],
                output_type="latent",
            )
        denoise = counter.get_total_flops()
        side = SIZE[self.name] // 8
        with counter:
            self.family.to_pixels(torch.zeros(1, 4, side, side, device=self.family.device))
        return float(STEPS * denoise + counter.get_total_flops())


def report(name: str, device: str, precision: str, compile: bool, images: int) -> list[str]:
    """Return the rows of the table for one architecture and precision."""
    arm = Arm(name, device, precision, compile)
    try:
        size = 256 if name == "tiny" else 8192
        peak = matmul_rate(arm.accelerator.device, arm.accelerator.dtype, size)
        head = f"| {name} {SIZE[name]} | {precision} |"
        bare = arm.bare_rate(images)
        rows = [f"{head} difference from diffusers | {arm.difference()} of 255 | | | |"]
        rows.append(f"{head} diffusers | {bare:.2f} | 1.00 | | {bare * arm.flop / peak:.0%} |")
        for clients in (1, 4, 16):
            rate, latency = arm.engine_rate(clients, max(images, 2 * clients))
            rows.append(
                f"{head} engine, {clients} clients | {rate:.2f} | {rate / bare:.2f} "
                f"| {latency:.2f} | {rate * arm.flop / peak:.0%} |"
            )
        return [*rows, f"{head} matmul peak | {peak / 1e12:.1f} TFLOP/s | | | |"]
    finally:
        arm.close()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--models", nargs="*", default=["sd15", "sdxl"], choices=list(SIZE))
    parser.add_argument("--precisions", nargs="*", default=["fp32", "fp16"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--compile", action="store_true", help="torch.compile the denoiser")
    parser.add_argument("--images", type=int, default=8)
    chosen = parser.parse_args()
    on_gpu = chosen.device == "cuda" and torch.cuda.is_available()
    print(torch.cuda.get_device_name() if on_gpu else "CPU")
    print("| model | precision | arm | images/s | ratio | p50 s | MFU |")
    print("|---|---|---|---|---|---|---|")
    for name in cast(list[str], chosen.models):
        for precision in chosen.precisions:
            rows = report(name, chosen.device, precision, chosen.compile, chosen.images)
            print("\n".join(rows), flush=True)


if __name__ == "__main__":
    main()
