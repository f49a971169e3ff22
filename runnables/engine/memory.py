"""The memory model, measured at warm-up, keeps work from starting that cannot finish."""

from __future__ import annotations

import math
from dataclasses import dataclass

from runnables.errors import Loc, PayloadTooLarge


@dataclass
class MemoryModel:
    """The peak bytes of a call are a rate x rows x latent area: attention is never materialised.

    Attributes:
        budget: bytes that calls may hold beside the models; infinite where nothing is known.
        row_rate: bytes per denoiser row and latent position.
        decode_rate: bytes per latent position of one decoded image.
        adapters: bytes of the budget that loaded LoRAs and ControlNets have taken.
    """

    budget: float = math.inf
    row_rate: float = 0.0
    decode_rate: float = 0.0
    adapters: float = 0.0

    def rows(self, area: int) -> float:
        """Return the denoiser rows of this latent area that fit in one call."""
        return self._left / (self.row_rate * area) if self.row_rate else math.inf

    def images(self, area: int) -> float:
        """Return the images of this latent area that can be decoded in one call."""
        return self._left / (self.decode_rate * area) if self.decode_rate else math.inf

    @property
    def _left(self) -> float:
        return max(0.0, self.budget - self.adapters)

    def check(self, area: int, rows: float, loc: Loc = ("height",)) -> None:
        """Check that an image that needs so many denoiser rows can be generated at all.

        Args:
            loc: the field to blame.

        Raises:
            PayloadTooLarge: it cannot, with the share of the native area that can.
        """
        fits = min(self.rows(area) / rows, self.images(area))
        if fits < 1:
            raise PayloadTooLarge(
                "the memory left on this device holds an image of about "
                f"{fits:.0%} of these pixels: request a smaller one",
                loc=loc,
            )


RECOVERY = 50  # calls without a failure after which a limit that was lowered rises a little
SMALLEST = 1 / 64


class Headroom:
    """The share of the usual batch size is lowered by an out-of-memory error, and raised again.

    Attributes:
        share: from 1/64 to 1.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self._calm = 0

    def exhausted(self) -> None:
        """Halve the rows of later calls, because a call ran out of memory."""
        self.share = max(self.share / 2, SMALLEST)
        self._calm = 0

    def succeeded(self) -> None:
        """Count a call that went well; after some of them, try a quarter more rows."""
        self._calm += 1
        if self.share < 1.0 and self._calm >= RECOVERY:
            self.share = min(1.0, self.share * 1.25)
            self._calm = 0
