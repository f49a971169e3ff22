"""`python -m benchmarks.repeats` measures what answering exact repeats from memory gains.

Clients send the same mix of new and repeated requests to a runnable that keeps results and to one
that does not. Rounds alternate between the two, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from benchmarks.figures import closed, spread
from benchmarks.serving import equal
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL, Settings

KEPT_MB = 64.0
POPULAR = 4  # requests that are repeated


def run(model: Path, share: float, requests: int, clients: int, rounds: int) -> Iterator[str]:
    """Run all rounds, and yield the report's lines.

    Args:
        share: the part of the requests that repeats one of a few popular ones.
    """
    seeds, rng = count(POPULAR), random.Random(0)
    arms = {kept: StableDiffusionRunnable(_settings(model, kept)) for kept in (0.0, KEPT_MB)}
    rates: dict[float, list[float]] = {kept: [] for kept in arms}
    answers: Counter[str] = Counter()
    (template,) = equal(1)
    try:
        for runnable in arms.values():
            runnable.start()
            runnable.txt2img(template.model_copy(update={"seed": None}))
        for _ in range(rounds):
            new = [next(seeds) for _ in range(requests)]
            chosen = [rng.randrange(POPULAR) if rng.random() < share else seed for seed in new]
            sent = [template.model_copy(update={"seed": seed}) for seed in chosen]
            for kept, runnable in arms.items():
                found, seconds = closed(runnable.txt2img, sent, clients)
                rates[kept].append(requests / seconds)
                if kept:
                    answers.update(result.cache or "generated" for result in found)
    finally:
        for runnable in arms.values():
            runnable.close()
    ratios = [with_ / without for with_, without in zip(rates[KEPT_MB], rates[0.0], strict=True)]
    yield f"{share:.0%} of the requests repeat one of {POPULAR}; {clients} clients"
    yield "| answered | requests |"
    yield "|---|---|"
    yield from (f"| {how} | {number} |" for how, number in answers.most_common())
    yield (
        f"requests/s: {statistics.median(rates[0.0]):.2f} without, "
        f"{statistics.median(rates[KEPT_MB]):.2f} with SD_REPEATS_MB; "
        f"ratio of a round {spread(ratios)}"
    )


def _settings(model: Path, kept: float) -> Settings:
    return Settings(model=str(model), repeats_mb=kept, max_queue_s=1e5, request_timeout_s=1e5)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repeats", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(EMBEDDED_MODEL))
    parser.add_argument("--share", type=float, default=0.5, help="requests that are repeats")
    parser.add_argument("--requests", type=int, default=60, help="of each round and arm")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for line in run(given.model, given.share, given.requests, given.clients, given.rounds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
