"""`python -m benchmarks.limit` measures which share of the CPU's limit the engine reaches.

The limit is what the machine could generate if every denoiser row took no longer than one of the
fullest call, and nothing else took any time: no encoding, no decoding, no call that is not full. It
is also compared with diffusers one at a time, because no scheduling can gain more than that.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

from torch import Tensor

from benchmarks.arms import Diffusers
from benchmarks.figures import closed, seconds_of, spread
from benchmarks.serving import WARM_UP, equal, mixed
from runnables.accelerators.cpu.device import Cpu
from runnables.families.base import Conditioning, Family
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL, Settings

EVERY = 10  # steps between two measurements of the fullest call
ALONE = 4  # one of so many requests is also generated one at a time


class Fullest:
    """The call with most rows is repeated between the steps of a workload, and measured.

    The machine's clock changes by a third within seconds. So the limit is measured in the moments
    in which the workload runs.

    Attributes:
        rows: of all calls.
        seconds: of the repeated calls, which the workload did not need.
    """

    def __init__(self) -> None:
        self._call: Callable[[], object] | None = None
        self._most = self._steps = self._repeated = self.rows = 0
        self.seconds = 0.0

    def forget(self) -> None:
        """Count anew; the fullest call stays the same."""
        self._steps = self._repeated = self.rows = 0
        self.seconds = 0.0

    @property
    def row_s(self) -> float:
        """Return the mean seconds of a row of the fullest call."""
        return self.seconds / max(self._repeated, 1)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the calls of every engine on the CPU, and repeat one now and then."""
        denoise, before_step = Cpu.denoise, Cpu.before_step

        def watched(
            cpu: Cpu, family: Family, sample: Tensor, timesteps: Tensor, conditioning: Conditioning
        ) -> Tensor:
            self.rows += len(sample)
            plain = conditioning.canvas is None and conditioning.mask is None
            if plain and len(sample) > self._most:
                self._most = len(sample)
                again = sample.clone(), timesteps.clone(), conditioning
                self._call = partial(denoise, cpu, family, *again)
            return denoise(cpu, family, sample, timesteps, conditioning)

        def between(cpu: Cpu) -> None:
            before_step(cpu)
            self._steps += 1
            if self._call is not None and self._steps % EVERY == 0:
                self.seconds += seconds_of(self._call)
                self._repeated += self._most

        with (
            mock.patch.object(Cpu, "denoise", watched),
            mock.patch.object(Cpu, "before_step", between),
        ):
            yield


@dataclass
class Found:
    """These are a workload's figures, round by round.

    Attributes:
        rates, limits: in images per second: measured, and the limit's.
        alone: what one at a time generates per second, of the same work.
    """

    rates: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """Return a line of the report."""
        shares = [rate / limit for rate, limit in zip(self.rates, self.limits, strict=True)]
        gains = [limit / alone for limit, alone in zip(self.limits, self.alone, strict=True)]
        return (
            f"| {name} | {statistics.median(self.rates):.2f} | {statistics.median(self.limits):.2f}"
            f" | {spread(shares)} | {spread(gains)} |"
        )


def run(model: Path, requests: int, clients: int, rounds: int) -> Iterator[str]:
    """Run all rounds, and yield the report's lines."""
    fullest = Fullest()
    settings = Settings(model=str(model), max_queue_s=1e5, request_timeout_s=1e5)
    alone = Diffusers(model)
    runnable = StableDiffusionRunnable(settings)
    with fullest.watching():
        runnable.start()
        try:
            closed(runnable.txt2img, mixed(requests // 2, WARM_UP), clients)
            closed(runnable.txt2img, equal(requests // 2), clients)
            found = {"equal": Found(), "mixed": Found()}
            for number in range(rounds):
                unit_rows = 0.0
                for name, made in (("equal", equal(requests)), ("mixed", mixed(requests, number))):
                    fullest.forget()
                    results, seconds = closed(runnable.txt2img, made, clients)
                    units = [one.cost_units for one in results]
                    unit_rows = unit_rows or fullest.rows / sum(units)
                    one = found[name]
                    one.rates.append(requests / (seconds - fullest.seconds))
                    one.limits.append(requests / (sum(units) * unit_rows * fullest.row_s))
                    one.alone.append(_alone(alone, made, units))
        finally:
            runnable.close()
            alone.close()
    yield "| workload | images/s | of the limit | share of the limit | limit / one at a time |"
    yield "|---|---|---|---|---|"
    for name, one in found.items():
        yield one.line(name)


def _alone(arm: Diffusers, requests: list[TextToImage], units: list[float]) -> float:
    """Return the images per second that one at a time would generate of these requests."""
    seconds = seconds_of(lambda: [arm.submit(one).result() for one in requests[::ALONE]])
    return len(requests) * sum(units[::ALONE]) / sum(units) / seconds


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
