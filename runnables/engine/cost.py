"""How long things take: calibrated at warm-up, corrected by every step that is run."""

from __future__ import annotations

from dataclasses import dataclass, field

GAIN = 0.05  # how far one observation moves the model
TURN_GAIN = 0.3  # the same for upscalers, whose first turn is often slow
FIRST_TURN_S = 0.1  # of an upscaler that was never used


@dataclass
class CostModel:
    """Seconds of a denoiser call = overhead + rate x denoiser rows x latent area.

    Attributes:
        overhead: seconds of a call that no row adds to.
        rate: seconds per denoiser row and latent position.
        decode_rate: seconds per latent position of one decoded image.
        turn: seconds of a turn of each upscaler that was used, by its name.
    """

    overhead: float = 0.005
    rate: float = 1e-5
    decode_rate: float = 1e-4
    turn: dict[str, float] = field(default_factory=dict)

    def step(self, rows: float, area: int) -> float:
        """Seconds of one denoiser call."""
        return self.overhead + self.rate * rows * area

    def alone(self, steps: int, rows: float, images: int, area: int) -> float:
        """Seconds a request takes with the machine to itself."""
        decode = self.decode_rate * area * images
        return steps * self.step(rows * images, area) + decode

    def share(self, work: float) -> float:
        """Seconds that so many denoiser rows x latent positions add to a machine already busy."""
        return self.rate * work

    def turns(self, upscaler: str, count: int) -> float:
        """Seconds of so many turns of an upscaler."""
        return count * self.turn.get(upscaler, FIRST_TURN_S)

    def observe_turn(self, upscaler: str, seconds: float) -> None:
        """As observe_step, for an upscaler; its first turn is the first that is known of it."""
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
        """As observe_step, for the VAE."""
        self.decode_rate += GAIN * (seconds / (images * area) - self.decode_rate)
