"""`python -m benchmarks.soak` sends many small requests, some of whose clients disconnect.

It counts how each request ended, and reports the memory of the service on the way. It fails when a
request ended in a way that is not intended.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import aiohttp
import psutil

from benchmarks.host import served
from runnables.settings import EMBEDDED_MODEL

INTENDED = {"generated", "walked away"}
LONGEST_WALK_S = 0.2  # a client that walks away does so within this time
SETTLE_S = 3.0  # for what is still being cleared away before memory is read


def parameters(seed: int) -> dict[str, object]:
    """Return a small request: two steps of 64x64, each with another prompt."""
    prompt = f"a red circle, number {seed}"
    return {"prompt": prompt, "seed": seed, "num_inference_steps": 2, "height": 64, "width": 64}


def memory_mb(process: psutil.Process) -> float:
    """Return the resident memory of the service's processes, in MB."""
    tree = [process, *process.children(recursive=True)]
    return float(sum(one.memory_info().rss for one in tree)) / 1e6


async def generate(
    session: aiohttp.ClientSession, url: str, seed: int, walk_s: float | None
) -> str:
    """Send one request, and return how it ended."""
    try:
        async with asyncio.timeout(walk_s):
            async with session.post(f"{url}/txt2img", json=parameters(seed)) as answer:
                body = await answer.read()
    except TimeoutError:
        return "walked away"
    except aiohttp.ClientError as error:
        return type(error).__name__
    if answer.status != 200:
        return f"status {answer.status}"
    return "generated" if body[:2] == b"\xff\xd8" else "not a JPEG"


async def client(
    url: str, seeds: Iterator[int], disconnect: float, ended: Callable[[str], None]
) -> None:
    """Send the next request as soon as the last one has ended."""
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for seed in seeds:
            rng = random.Random(seed)
            walks = rng.random() < disconnect
            ended(
                await generate(session, url, seed, rng.random() * LONGEST_WALK_S if walks else None)
            )


async def soak(url: str, process: psutil.Process, arguments: argparse.Namespace) -> Counter[str]:
    """Send all requests, and print a line at every tenth of them."""
    counts: Counter[str] = Counter()
    tenth, started = max(1, arguments.requests // 10), time.monotonic()

    def ended(how: str) -> None:
        counts[how] += 1
        if counts.total() % tenth == 0:
            seconds = time.monotonic() - started
            print(f"| {counts.total()} | {seconds:.0f} | {memory_mb(process):.0f} |", flush=True)

    seeds = iter(range(arguments.requests))
    clients = [client(url, seeds, arguments.disconnect, ended) for _ in range(arguments.clients)]
    await asyncio.gather(*clients)
    return counts


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--disconnect", type=float, default=0.1, help="share that walks away")
    arguments = parser.parse_args()
    with served(arguments.model) as (url, process):
        print("| requests ended | seconds | MB |\n|---|---|---|")
        counts = asyncio.run(soak(url, process, arguments))
        time.sleep(SETTLE_S)
        print(f"| idle again | | {memory_mb(process):.0f} |")
    print(", ".join(f"{how}: {count}" for how, count in sorted(counts.items())))
    if set(counts) - INTENDED:
        sys.exit("some requests ended in a way that is not intended")


if __name__ == "__main__":
    main()
