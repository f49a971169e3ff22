"""`python -m benchmarks.fairness` measures what others cost a small request, and how right eta is.

Every round runs all situations one after the other, so that what else the machine does falls on all
of them alike. The report has the median and the range of the ratios to the same round's solo run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.serving import mixed
from runnables.errors import OverCapacity
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL, Settings
from runnables.ticket import Caller, Progress, Ticket

SMALL, FLOODER = Caller("small"), Caller("flooder")
WARM = 5  # requests of each client before those whose estimates are counted,
MORE = 20  # and that it may send until all of those have ended
ROWS = ("alone", "1 long job", "4 long jobs", "flood, equal", "flood, other size")


class Bench:
    """One runnable, and the requests that are sent to it.

    Args:
        shots: small requests of each situation and round.
    """

    def __init__(self, model: Path, steps: int, shots: int) -> None:
        settings = Settings(model=str(model), max_queue_s=60.0, request_timeout_s=1e5)
        self.runnable = StableDiffusionRunnable(settings, observe=self._observe)
        self._calls: dict[int, list[float]] = {}  # seconds of denoiser calls, by their rows
        self.runnable.start()
        self._steps, self._shots = steps, shots
        self.refused = self.flood_refused = self.flooded = 0

    def close(self) -> None:
        self.runnable.close()

    def _observe(self, stage: str, seconds: float, rows: int) -> None:
        if stage == "denoise":
            self._calls.setdefault(rows, []).append(seconds)

    @property
    def full_step_s(self) -> float:
        """Return the median seconds of the calls with most rows."""
        return statistics.median(self._calls[max(self._calls)])

    def _submit(self, caller: Caller, steps: int, **options: object) -> Ticket | None:
        parameters = TextToImage(
            prompt="sea",
            seed=1,
            num_inference_steps=steps,
            **options,
        )
        try:
            return self.runnable.submit(parameters, caller=caller)
        except OverCapacity:
            return None

    def small(self) -> list[float]:
        """Send small requests one after the other; return their seconds."""
        seconds = []
        for _ in range(self._shots):
            started = time.perf_counter()
            ticket = self._submit(SMALL, self._steps)
            if ticket is None:
                self.refused += 1
                continue
            ticket.future.result()
            seconds.append(time.perf_counter() - started)
            time.sleep(0.05)
        return seconds

    @contextmanager
    def beside(self, others: Callable[[], list[Ticket | None]]) -> Iterator[None]:
        """Keep other requests in the engine for as long as the block runs."""
        sent = [ticket for ticket in others() if ticket]
        time.sleep(0.3)  # until they take steps
        try:
            yield
        finally:
            for ticket in sent:
                ticket.cancel()
            for ticket in sent:
                ticket.future.exception()

    def long_jobs(self, count: int) -> list[Ticket | None]:
        """Send jobs of the small requests' own caller."""
        return [self._submit(SMALL, 150, num_images_per_prompt=4) for _ in range(count)]

    def flood(self, **options: object) -> list[Ticket | None]:
        """Send a hundred requests for every small one, each as long as a small one."""
        count = 100 * self._shots
        self.flooded += count
        sent = [self._submit(FLOODER, self._steps, **options) for _ in range(count)]
        self.flood_refused += sent.count(None)
        return sent


def run(model: Path, rounds: int, shots: int, steps: int, requests: int) -> Iterator[str]:
    """Run all situations, and yield the report's lines."""
    bench = Bench(model, steps, shots)
    try:
        bench.small()  # warm up
        seconds: dict[str, list[list[float]]] = {name: [] for name in ROWS}
        for _ in range(rounds):
            seconds["alone"].append(bench.small())
            for name, others in _situations(bench).items():
                with bench.beside(others):
                    seconds[name].append(bench.small())
        yield from _report(seconds, steps)
        alone_s = statistics.median(second for one in seconds["alone"] for second in one)
        bound_s = 2 * alone_s + bench.full_step_s
        yield (
            f"a flood may cost twice what it takes alone, and a full step of "
            f"{bench.full_step_s:.2f} s: {bound_s:.2f} s"
        )
        yield (
            f"small requests refused: {bench.refused}; "
            f"of the flood: {bench.flood_refused} of {bench.flooded}"
        )
        yield from estimates(bench.runnable, clients=8, requests=requests)
    finally:
        bench.close()


def _situations(bench: Bench) -> dict[str, Callable[[], list[Ticket | None]]]:
    height, width = bench.runnable.describe()["height"], bench.runnable.describe()["width"]
    return {
        "1 long job": lambda: bench.long_jobs(1),
        "4 long jobs": lambda: bench.long_jobs(4),
        "flood, equal": bench.flood,
        "flood, other size": lambda: bench.flood(height=height, width=width * 3 // 4),
    }


def _report(seconds: dict[str, list[list[float]]], steps: int) -> Iterator[str]:
    yield f"| {steps} steps beside | median s | largest s | ratio | range of the rounds' ratios |"
    yield "|---|---|---|---|---|"
    alone = [statistics.median(one) for one in seconds["alone"]]
    for name, rounds in seconds.items():
        every = [second for one in rounds for second in one]
        ratios = [statistics.median(one) / base for one, base in zip(rounds, alone, strict=True)]
        yield (
            f"| {name} | {statistics.median(every):.2f} | {max(every):.2f} "
            f"| {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |"
        )


def estimates(runnable: StableDiffusionRunnable, clients: int, requests: int) -> Iterator[str]:
    """Report how wrong eta_s is after five steps, under mixed requests of some clients.

    The first requests after a start teach the cost of steps and what newcomers add; they are
    reported apart. The clients go on until all that are counted have ended, because nobody comes
    at the end of a run, which no estimate can know.
    """
    taught = WARM * clients
    counted = taught + requests
    sent, found = iter(enumerate(mixed(counted + MORE * clients))), dict[int, list[float]]()

    def client() -> None:
        while not all(number in found for number in range(counted)):
            number, parameters = next(sent)
            found[number] = _errors(runnable, parameters)

    with ThreadPoolExecutor(clients) as pool:
        for future in [pool.submit(client) for _ in range(clients)]:
            future.result()
    yield f"eta_s after five steps, {clients} clients that never pause:"
    for name, numbers in (
        (f"the first {taught} requests", range(taught)),
        (f"the next {requests} requests", range(taught, counted)),
    ):
        yield from _right(name, [found[number] for number in numbers if found[number]])


def _right(name: str, requests: list[list[float]]) -> Iterator[str]:
    """Report the errors of requests' estimates: of the first ones, and of all."""
    first, every = [one[0] for one in requests], [error for one in requests for error in one]
    yield (
        f"{name}: {_within(first):.0%} of {len(first)} requests within 30% right after the fifth "
        f"step; {_within(every):.0%} of all their {len(every)} estimates"
    )
    yield "| of the estimates | " + " | ".join(f"{10 * i}%" for i in range(1, 10)) + " |"
    yield "|---" * 10 + "|"
    tenths = statistics.quantiles(every, n=10)
    yield "| error at most | " + " | ".join(f"{error:+.0%}" for error in tenths) + " |"


def _within(errors: list[float]) -> float:
    return statistics.mean(abs(error) <= 0.3 for error in errors)


def _errors(runnable: StableDiffusionRunnable, parameters: TextToImage) -> list[float]:
    """Generate, and return the relative error of every estimate from the fifth step on."""
    seen: list[tuple[float, float]] = []

    def watch(progress: Progress) -> None:
        if progress.step >= 5 and progress.eta_s:
            seen.append((time.monotonic(), progress.eta_s))

    runnable.submit(parameters, on_step=watch).future.result()
    end = time.monotonic()
    return [eta / (end - at) - 1 for at, eta in seen]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(EMBEDDED_MODEL))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shots", type=int, default=4, help="small requests per situation")
    parser.add_argument("--steps", type=int, default=4, help="of a small request")
    parser.add_argument("--requests", type=int, default=80, help="whose estimates are counted")
    one = parser.parse_args()
    for line in run(one.model, one.rounds, one.shots, one.steps, one.requests):
        print(line, flush=True)


if __name__ == "__main__":
    main()
