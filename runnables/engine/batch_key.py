"""What must match for two rows to share a UNet call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchKey:
    """Everything else may differ: prompt, step, sampler, guidance, strength, start time.

    Attributes:
        pipeline: the loaded model's number: the refiner is another than its base.
        height, width: of the latents.
        tokens: length of the text conditioning.
        shallow: a DeepCache call, of the UNet's outermost blocks only.
    """

    pipeline: int
    height: int
    width: int
    tokens: int
    shallow: bool = False

    @property
    def area(self) -> int:
        """Latent positions of one row."""
        return self.height * self.width
