"""`python -m benchmarks.company` measures one, two and three services on the same cores.

Each service runs under `bentoml serve` and generates the same image again and again. The arms are
ways to set the number of threads; they run in turn, in interleaved rounds. The report has the
median seconds of an image, and the ratio to the best arm of the same round with its spread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.figures import seconds_of, spread
from benchmarks.host import post, served
from runnables.settings import EMBEDDED_MODEL

CORES = str(os.cpu_count() or 1)
ARMS: dict[str, dict[str, str]] = {
    "adapted": {},
    "all cores": {"SD_THREADS": CORES},
    "one thread": {"SD_THREADS": "1"},
    "passive wait": {"SD_THREADS": CORES, "OMP_WAIT_POLICY": "passive"},
    "short spin": {"SD_THREADS": CORES, "GOMP_SPINCOUNT": "1000"},
}
IMAGE = {"prompt": "a red circle", "num_inference_steps": 20, "seed": 1}


def images(url: str, seconds: float) -> list[float]:
    """Return the seconds of each image that one client, who waits for each, gets in this time."""
    figures: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or not figures:
        figures.append(seconds_of(lambda: post(url, IMAGE)))
    return figures


def image_seconds(environment: dict[str, str], services: int, seconds: float) -> float:
    """Return the median seconds per image of so many services that generate at the same time."""
    with ExitStack() as stack, ThreadPoolExecutor(services) as clients:
        urls = [
            stack.enter_context(served(str(EMBEDDED_MODEL), **environment))[0]
            for _ in range(services)
        ]
        found = list(clients.map(lambda url: images(url, seconds), urls))
    return statistics.median(figure for figures in found for figure in figures)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of generating, for each figure")
    parser.add_argument("--services", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    args = parser.parse_args()
    for services in args.services:
        found: dict[str, list[float]] = {arm: [] for arm in args.arms}
        for _ in range(args.rounds):
            for arm in args.arms:
                found[arm].append(image_seconds(ARMS[arm], services, args.seconds))
        best = [min(figures) for figures in zip(*found.values(), strict=True)]
        print(f"{services} at the same time: seconds per image, ratio to the best arm")
        for arm, figures in found.items():
            ratios = [figure / least for figure, least in zip(figures, best, strict=True)]
            print(f"  {arm:14} {statistics.median(figures):7.2f} s  {spread(ratios)}", flush=True)


if __name__ == "__main__":
    main()
