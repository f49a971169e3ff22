"""The second pass: what a request has drawn is enlarged, and redrawn as image to image."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from runnables.errors import InvalidInput
from runnables.extensions.controlnet.residuals import ControlSet
from runnables.families.base import Pipeline
from runnables.families.latents import from_image, from_latents, image_to_pixels
from runnables.parameters import MAX_SIZE, Hires, ImageToImage, TextToImage
from runnables.samplers.table import SamplerTable
from runnables.upscalers.upscaler import Upscaler

Size = tuple[int, int]
LATENT = "latent"  # what stands for no upscaler: the latents are enlarged


@dataclass(frozen=True, eq=False)
class SecondPass:
    """A stage that starts from the enlarged result of the one before it.

    Attributes:
        size: (height, width) in pixels.
        upscaler: enlarges the decoded picture. None: the latents are enlarged.
        controls: the ControlNets, each with its image at this size.
    """

    pipeline: Pipeline
    table: SamplerTable
    size: Size
    upscaler: Upscaler | None = None
    controls: ControlSet = ()

    @property
    def area(self) -> int:
        """Latent positions."""
        return self.size[0] * self.size[1] // self.pipeline.scale_factor**2

    def from_latents(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """The stage's first sample, (C, H, W) float32, of the latents (C, h, w) before it."""
        return from_latents(self.pipeline, latents, self.size, self.table, generator)

    def from_picture(
        self, picture: Image, generator: torch.Generator
    ) -> Generator[None, None, Tensor]:
        """The same of the decoded picture, with a turn for each of the upscaler's."""
        assert self.upscaler is not None
        larger = yield from self.upscaler.enlarge(picture, self.size)
        pixels = image_to_pixels(larger, self.size)
        return from_image(self.pipeline, pixels, self.table, generator).sample


def resolve(parameters: TextToImage) -> Hires | None:
    """The second pass with nothing left open."""
    hires = parameters.hires
    if hires is None or hires.num_inference_steps is not None:
        return hires
    return hires.model_copy(update={"num_inference_steps": parameters.num_inference_steps})


def as_image_to_image(parameters: TextToImage, hires: Hires) -> ImageToImage:
    """What the second pass is by itself."""
    return ImageToImage(
        prompt=parameters.prompt,
        scheduler=parameters.scheduler,
        num_inference_steps=hires.num_inference_steps,
        strength=hires.strength,
    )


def enlarged(size: Size, scale: float, multiple: int) -> Size:
    """(height, width) of the second pass: the nearest multiples.

    Raises:
        InvalidInput: a side would be too long.
    """
    height, width = (round(side * scale / multiple) * multiple for side in size)
    if max(height, width) > MAX_SIZE:
        raise InvalidInput(
            f"hires.scale makes {height} x {width}, and no side may be over {MAX_SIZE}",
            loc=("hires", "scale"),
        )
    return height, width
