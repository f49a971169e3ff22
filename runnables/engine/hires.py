"""A second pass enlarges a finished image, and generates it again as image to image."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from runnables.errors import InvalidInput
from runnables.families.base import Family, Size, Traits
from runnables.families.latents import from_image, from_latents, image_to_pixels
from runnables.parameters import MAX_SIZE
from runnables.samplers.table import SamplerTable
from runnables.upscalers.upscaler import Upscaler

LATENT = "latent"  # the name that stands for no upscaler: the latents are enlarged


@dataclass(frozen=True, eq=False)
class SecondPass:
    """A second pass is a stage that starts from the enlarged result of the one before it.

    Attributes:
        size: (height, width) in pixels.
        upscaler: enlarges the decoded picture. None: the latents are enlarged.
    """

    family: Family
    table: SamplerTable
    size: Size
    upscaler: Upscaler | None = None

    @property
    def area(self) -> int:
        """Return the latent positions."""
        return self.family.traits.area(self.size)

    def from_latents(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Return the first sample, (C, H, W) float32, of the latents (C, h, w) before it."""
        return from_latents(self.family, latents, self.size, self.table, generator)

    def from_picture(
        self, picture: Image, generator: torch.Generator
    ) -> Generator[None, None, Tensor]:
        """Return the first sample of the decoded picture; yield after each tile of the upscaler."""
        assert self.upscaler is not None
        larger = yield from self.upscaler.enlarge(picture, self.size)
        pixels = image_to_pixels(larger, self.size)
        return from_image(self.family, pixels, self.table, generator).sample


def enlarged(size: Size, scale: float, traits: Traits) -> Size:
    """Return (height, width) of the second pass: the nearest multiples.

    Raises:
        InvalidInput: a side would be too long.
    """
    multiple, most = traits.size_multiple, traits.largest_side or MAX_SIZE
    height, width = (round(side * scale / multiple) * multiple for side in size)
    if max(height, width) > min(most, MAX_SIZE):
        raise InvalidInput(
            f"hires.scale makes {height} x {width}, and no side may be over {min(most, MAX_SIZE)}",
            loc=("hires", "scale"),
        )
    return height, width
