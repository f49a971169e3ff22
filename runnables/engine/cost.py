"""The cost model estimates seconds: calibrated at warm-up, and corrected by every step."""

from __future__ import annotations

from dataclasses import dataclass, field

GAIN = 0.05  # how far one observation moves the model
TURN_GAIN = 0.3  # the same for upscalers, whose first turn is often slow
FIRST_TURN_S = 0.1  # of an upscaler that was never used


@dataclass
class CostModel:
    """A denoiser call takes overhead + rate x denoiser rows x latent area, in seconds.

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

    def step(self, rows: float, area: int) -> float:
        """Return the seconds of one denoiser call."""
        return self.overhead + self.rate * rows * area

    def alone(self, steps: int, rows: float, images: int, area: int) -> float:
        """Return the seconds that a request takes when it has the machine to itself."""
        decode = self.decode_rate * area * images
        return steps * self.step(rows * images, area) + decode

    def share(self, work: float) -> float:
        """Return the seconds that rows x latent positions add to a machine already busy."""
        return self.rate * work

    def turns(self, upscaler: str, count: int) -> float:
        """Return the seconds of so many tiles of an upscaler."""
        return count * self.turn.get(upscaler, FIRST_TURN_S)

    def observe_turn(self, upscaler: str, seconds: float) -> None:
        """Correct an upscaler's seconds per tile; the first observation is taken as it is."""
        known = self.turn.get(upscaler, seconds)
        self.turn[upscaler] = known + TURN_GAIN * (seconds - known)

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
        """Scale the model towards what a call really took."""
        ratio = min(max(seconds / max(self.step(rows, area), 1e-9), 0.1), 10.0)
        self.overhead *= 1 + GAIN * (ratio - 1)
        self.rate *= 1 + GAIN * (ratio - 1)

    def observe_decode(self, images: int, area: int, seconds: float) -> None:
        """Correct the VAE's seconds by what a decode really took."""
        self.decode_rate += GAIN * (seconds / (images * area) - self.decode_rate)
