"""The cost model estimates seconds: calibrated at warm-up, and corrected by every step."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field

GAIN = 0.1  # how far one decode moves the VAE's seconds
BOUND = 2.0  # a decode counts as at most so many times its estimate, and no less than 1/BOUND
FIRST = 0.3  # standard deviations, as shares of a call: of overhead and of rate after a warm-up,
NOISE = 0.1  # of a call from others of its size,
SPEED = 0.03  # of the machine's speed from one call to the next,
DRIFT = 0.01  # and of overhead and of rate, each on its own
OUTLIER = 2.5  # standard deviations by which a call counts as wrong at most
RECENT = 7  # observations whose median shows that the machine has become faster or slower
SHIFT = 1.5  # from this factor on the median is a new level, and the model takes it at once
DOUBT = 10.0  # as CostModel.doubt, before the first step; it falls with every step
TURN_GAIN = 0.3  # as GAIN, for upscalers, whose first turn is often slow
FIRST_TURN_S = 0.1  # of an upscaler that was never used
SHARING = 4.0  # images that share a call of a busy machine, as estimates of waiting assume


class Level:
    """A level tells a lasting change from outliers: the median of recent observations says it."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)

    def changed(self, ratio: float) -> float | None:
        """Count an observation by its ratio to the estimate.

        Returns:
            The factor by which everything has changed, or None where it has not.
        """
        self._recent.append(ratio)
        median = statistics.median(self._recent)
        if len(self._recent) < RECENT or 1 / SHIFT < median < SHIFT:
            return None
        latest = statistics.median(list(self._recent)[-3:])  # the estimate has moved meanwhile
        self._recent.clear()
        return latest


class Filter:
    """This Kalman filter learns overhead and rate from calls of different size.

    Their covariance says how far each is moved: far in the first calls, and together where the
    machine becomes slower, because calls of one size alone do not tell them apart.
    """

    def __init__(self) -> None:
        self._covariance: tuple[float, float, float] | None = None  # overhead, of both, rate

    def doubt(self) -> None:
        """Take what is known as no better than after a warm-up."""
        self._covariance = None

    def corrections(
        self, overhead: float, rate: float, work: float, seconds: float
    ) -> tuple[float, float]:
        """Return what to add to overhead and rate, after a call of so much work.

        Args:
            work: rows x area.
        """
        estimate = max(overhead + rate * work, 1e-9)
        first = (FIRST * estimate) ** 2
        oo, both, rr = self._covariance or (first, 0.0, first / work**2)
        apart = (DRIFT * estimate) ** 2
        oo += (SPEED * overhead) ** 2 + apart
        both += SPEED**2 * overhead * rate
        rr += (SPEED * rate) ** 2 + apart / work**2
        to_overhead, to_rate = oo + both * work, both + rr * work
        variance = to_overhead + to_rate * work + (NOISE * estimate) ** 2
        most = OUTLIER * math.sqrt(variance)
        error = min(max(seconds - estimate, -most), most) / variance
        self._covariance = (
            oo - to_overhead**2 / variance,
            both - to_overhead * to_rate / variance,
            rr - to_rate**2 / variance,
        )
        return error * to_overhead, error * to_rate


@dataclass
class CostModel:
    """A denoiser call takes overhead + rate x denoiser rows x latent area, in seconds.

    Both are learnt from calls of different size. A single observation has a bounded effect, however
    slow the machine was at that moment, and a model that is wrong as a whole (a warm-up beside
    other work) is replaced after a few calls.

    Attributes:
        overhead: seconds of a call that no row adds to.
        rate: seconds per denoiser row and latent position.
        decode_rate: seconds per latent position of one decoded image.
        turn: seconds per tile of each upscaler that was used, by its name.
    """

    overhead: float = 0.005
    rate: float = 1e-5
    decode_rate: float = 1e-4
    turn: dict[str, float] = field(default_factory=dict)
    _filter: Filter = field(default_factory=Filter, repr=False, compare=False)
    _steps: Level = field(default_factory=Level, repr=False, compare=False)
    _decodes: Level = field(default_factory=Level, repr=False, compare=False)
    _observed: int = field(default=0, repr=False)  # steps

    @property
    def doubt(self) -> float:
        """Return how many times too long estimates may be: warm-ups run beside other work, too."""
        return max(1.0, DOUBT / (1 + self._observed))

    def step(self, rows: float, area: int) -> float:
        """Return the seconds of one denoiser call."""
        return self.overhead + self.rate * rows * area

    def alone(self, steps: int, rows: float, images: int, area: int) -> float:
        """Return the seconds that a request takes when it has the machine to itself."""
        return steps * self.step(rows * images, area) + self.decode(images, area)

    def decode(self, images: float, area: int) -> float:
        """Return the seconds in which the VAE decodes so many images."""
        return self.decode_rate * area * images

    def share(self, work: float, calls: float) -> float:
        """Return the seconds that a request adds to a machine that is busy already.

        Args:
            work: rows x latent positions of all its calls.
            calls: denoiser calls of all its images; others share them.
        """
        return self.rate * work + self.overhead * calls / SHARING

    def left(self, work: float, calls: float) -> float:
        """Return the seconds of the calls that are left of an image, alone on the machine."""
        return self.rate * work + self.overhead * calls

    def turns(self, upscaler: str, count: int) -> float:
        """Return the seconds of so many tiles of an upscaler."""
        return count * self.turn.get(upscaler, FIRST_TURN_S)

    def observe_turn(self, upscaler: str, seconds: float) -> None:
        """Correct an upscaler's seconds per tile; the first observation is taken as it is."""
        known = self.turn.get(upscaler, seconds)
        self.turn[upscaler] = known + TURN_GAIN * (min(seconds, 10 * known) - known)

    def calibrate(self, samples: list[tuple[int, int, float]]) -> None:
        """Fit overhead and rate to (denoiser rows, area, seconds) of calls of different size."""
        small, large = samples[0], samples[-1]
        work_small, work_large = small[0] * small[1], large[0] * large[1]
        if work_large > work_small:
            slope = (large[2] - small[2]) / (work_large - work_small)
            self.rate = max(slope, 0.1 * large[2] / work_large)
        else:
            self.rate = 0.8 * small[2] / work_small
        self.overhead = max(small[2] - self.rate * work_small, 0.0)

    def observe_step(self, rows: float, area: int, seconds: float) -> None:
        """Correct overhead and rate by what a call really took."""
        self._observed += 1
        work, estimate = rows * area, max(self.step(rows, area), 1e-9)
        if factor := self._steps.changed(seconds / estimate):
            self.overhead *= factor
            self.rate *= factor
            self._filter.doubt()
            return
        overhead, rate = self._filter.corrections(self.overhead, self.rate, work, seconds)
        self.overhead = max(self.overhead + overhead, 0.0)
        self.rate = max(self.rate + rate, 0.01 * self.rate)

    def observe_decode(self, images: int, area: int, seconds: float) -> None:
        """Correct the VAE's seconds by what a decode really took."""
        observed, estimate = seconds / (images * area), max(self.decode_rate, 1e-12)
        factor = self._decodes.changed(observed / estimate)
        if factor:
            self.decode_rate *= factor
        else:
            self.decode_rate += GAIN * (_bounded(observed, estimate) - estimate)


def _bounded(observed: float, estimate: float) -> float:
    return min(max(observed, estimate / BOUND), estimate * BOUND)
