"""`python -m benchmarks.limit` measures which share of the machine's limit the engine reaches.

The limit is what the machine could generate if every denoiser row took the least time that was
measured for one, and nothing else took any: no encoding, no decoding, no call that is not full.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import closed
from benchmarks.serving import WARM_UP, equal, mixed
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL, Settings


class Rows:
    """These are the denoiser calls of a workload, as the runnable's `observe` hook sees them."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, int]] = []  # seconds, rows

    def observe(self, stage: str, seconds: float, rows: int) -> None:
        """Note a denoiser call."""
        if stage == "denoise":
            self.calls.append((seconds, rows))

    @property
    def best(self) -> float:
        """Return the least seconds per row: of each number of rows the median counts."""
        by_rows: dict[int, list[float]] = {}
        for seconds, rows in self.calls:
            by_rows.setdefault(rows, []).append(seconds / rows)
        return min(statistics.median(times) for times in by_rows.values())


def run(model: Path, requests: int, clients: int, rounds: int) -> Iterator[str]:
    """Run all rounds, and yield the report's lines."""
    rows = Rows()
    settings = Settings(model=str(model), max_queue_s=1e5, request_timeout_s=1e5)
    runnable = StableDiffusionRunnable(settings, observe=rows.observe)
    runnable.start()
    try:
        yield "| workload | images/s | share of the limit | of the rounds |"
        yield "|---|---|---|---|"
        shares: dict[str, list[float]] = {"equal": [], "mixed": []}
        rates: dict[str, list[float]] = {"equal": [], "mixed": []}
        closed(runnable.txt2img, mixed(requests // 2, WARM_UP), clients)
        for _ in range(rounds):
            rows.calls.clear()
            unit_s = 0.0
            for name, made in (("equal", equal), ("mixed", mixed)):
                results, seconds = closed(runnable.txt2img, made(requests), clients)
                units = sum(one.cost_units for one in results)
                unit_s = unit_s or rows.best * sum(number for _, number in rows.calls) / units
                shares[name].append(unit_s * units / seconds)
                rates[name].append(requests / seconds)
        for name, found in shares.items():
            spread = f"{min(found):.0%} to {max(found):.0%}"
            rate = statistics.median(rates[name])
            yield f"| {name} | {rate:.2f} | {statistics.median(found):.0%} | {spread} |"
    finally:
        runnable.close()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(EMBEDDED_MODEL))
    parser.add_argument("--requests", type=int, default=60, help="of each round and workload")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for line in run(given.model, given.requests, given.clients, given.rounds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
