"""Each task's denoising starts here: initial latents, mask, and the order of random draws.

The order of a request's random draws is that of diffusers' pipelines, so that the
same seed gives the same image: first the posterior of the input image, then the noise, then the
posterior of the masked image; the sampler's own noise follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from runnables.families.base import Family, Size

if TYPE_CHECKING:
    from PIL.Image import Image

    from runnables.samplers.table import SamplerTable
    from runnables.ticket import Inputs


MASK = {"do_normalize": False, "do_binarize": True, "do_convert_grayscale": True}
AHEAD_BYTES = 2**24  # most noise that a row has on the device: few samplers and sizes need more


@dataclass(frozen=True, eq=False)
class Start:
    """A start is one row before its first step.

    Attributes:
        sample: (C, h, w) float32, x_0.
        generator: the row's CPU generator, for the sampler's noise.
        mask: (1, h, w) float32, 1 where an inpainting row is repainted; with `image_latents` and
            `noise`, (C, h, w) float32, it restores the rest after every step.
        channels: (5, h, w), mask and masked image that a 9-channel UNet takes beside the sample.
    """

    sample: Tensor
    generator: torch.Generator
    mask: Tensor | None = None
    image_latents: Tensor | None = None
    noise: Tensor | None = None
    channels: Tensor | None = None

    @property
    def inpaints(self) -> bool:
        """Return whether a part of an input image is kept."""
        return self.mask is not None or self.channels is not None


def draw_noise(
    shape: tuple[int, ...],
    generator: torch.Generator,
    family: Family,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw unit Gaussian noise on the CPU, as diffusers does; by default in the model's dtype."""
    return _drawn(shape, generator, family, dtype or family.dtype).to(family.device)


def draw_noises(
    table: SamplerTable,
    first: int,
    shape: tuple[int, ...],
    generator: torch.Generator,
    family: Family,
) -> dict[int, Tensor]:
    """Draw the noise of a sampler's next steps, each (C, h, w), and bring it to the device at once.

    Args:
        first: the step to begin with.
        shape: (1, C, h, w).

    Returns:
        the noise of those steps that draw some, by step: of all, or as many as AHEAD_BYTES hold.
    """
    dtype = family.noise_dtype
    most = max(1, AHEAD_BYTES // (math.prod(shape) * dtype.itemsize))
    steps = [step for step in range(first, len(table)) if table.draws_noise[step]][:most]
    # before the generator moves on: where memory is full, the step is tried again
    ahead = torch.empty((len(steps), *shape[1:]), dtype=dtype, device=family.device)
    drawn = [_drawn(shape, generator, family, dtype) for _ in steps]
    return dict(zip(steps, ahead.copy_(torch.cat(drawn)), strict=True))


def from_noise(
    family: Family, size: Size, table: SamplerTable, generator: torch.Generator
) -> Start:
    """Start text to image, from pure noise."""
    noise = draw_noise(_latent_shape(family, size), generator, family, family.noise_dtype)
    return Start(_mix(table, None, noise)[0], generator)


def from_image(
    family: Family, pixels: Tensor, table: SamplerTable, generator: torch.Generator
) -> Start:
    """Start image to image (SDEdit, arXiv:2108.01073): noise the image's latents.

    Args:
        pixels: (1, 3, H, W) in -1..1.
    """
    image_latents = family.to_latents(pixels, generator)
    noise = draw_noise(tuple(image_latents.shape), generator, family)
    return Start(_mix(table, image_latents, noise)[0], generator)


def from_latents(
    family: Family,
    latents: Tensor,
    size: Size,
    table: SamplerTable,
    generator: torch.Generator,
) -> Tensor:
    """Start image to image of another size: stretch the latents (bilinear), and noise them.

    Args:
        latents: (C, h, w) float32, denoised.
        size: (height, width) in pixels.

    Returns:
        (C, H, W) float32, x_0.
    """
    shape = _latent_shape(family, size)
    larger = torch.nn.functional.interpolate(latents[None], size=shape[2:], mode="bilinear")
    return _mix(table, larger, draw_noise(shape, generator, family))[0]


def from_masked_image(
    family: Family,
    pixels: Tensor,
    mask: Tensor,
    table: SamplerTable,
    generator: torch.Generator,
    *,
    pure_noise: bool,
) -> Start:
    """Start inpainting, for UNets of 4 channels (blended after every step) and of 9.

    Args:
        pixels: (1, 3, H, W) in -1..1.
        mask: (1, 1, H, W) of 0 and 1; 1 is repainted.
        pure_noise: strength is 1, so the image does not show through the start.
    """
    blended = not family.traits.inpaints_only
    size = (int(pixels.shape[2]), int(pixels.shape[3]))
    image_latents = None
    if blended or not pure_noise:
        image_latents = family.to_latents(pixels, generator)
    noise = draw_noise(_latent_shape(family, size), generator, family)
    masked_latents = family.to_latents(pixels * (mask < 0.5), generator)
    small_mask = torch.nn.functional.interpolate(mask, size=tuple(noise.shape[2:]))
    small_mask = small_mask.to(family.device, family.dtype)
    sample = _mix(table, None if pure_noise else image_latents, noise)[0]
    if not blended:
        return Start(sample, generator, channels=torch.cat([small_mask, masked_latents], dim=1)[0])
    assert image_latents is not None
    return Start(
        sample, generator, small_mask[0].float(), image_latents[0].float(), noise[0].float()
    )


def fitted(inputs: Inputs, size: Size) -> Inputs:
    """Return the pictures that a task starts from, resized to (height, width) as diffusers does.

    Control images stay as they are: a second pass needs them at another size.
    """

    def resized(picture: Image | None, processor: Any) -> Image | None:
        return picture and processor.resize(picture, height=size[0], width=size[1])

    return replace(
        inputs,
        image=resized(inputs.image, _processor()),
        mask=resized(inputs.mask, _processor(**MASK)),
    )


def image_to_pixels(image: Image, size: Size) -> Tensor:
    """Resize an RGB image as diffusers does, to (1, 3, H, W) float32 in -1..1."""
    pixels: Tensor = _processor().preprocess(image, height=size[0], width=size[1])
    return pixels


def mask_to_pixels(mask: Image, size: Size) -> Tensor:
    """Turn a mask image into (1, 1, H, W) of 0 and 1; white (1) is repainted."""
    pixels: Tensor = _processor(**MASK).preprocess(mask, height=size[0], width=size[1])
    return pixels


def control_to_pixels(image: Image, size: Size) -> Tensor:
    """Resize an RGB image for a ControlNet as diffusers does, to (3, H, W) float32 in 0..1."""
    pixels: Tensor = _processor(do_normalize=False).preprocess(image, height=size[0], width=size[1])
    return pixels[0]


@cache
def _processor(**options: bool) -> Any:
    from diffusers.image_processor import VaeImageProcessor

    return VaeImageProcessor(**options)


def _latent_shape(family: Family, size: Size) -> tuple[int, int, int, int]:
    return (1, family.traits.latent_channels, *family.traits.latents_of(size))


def _drawn(
    shape: tuple[int, ...], generator: torch.Generator, family: Family, dtype: torch.dtype
) -> Tensor:
    images, channels, height, width = shape
    patch = family.traits.noise_patch
    patches = (images, channels * patch**2, height // patch, width // patch)
    noise = torch.randn(patches, generator=generator, dtype=dtype)
    return torch.nn.functional.pixel_shuffle(noise, patch)


def _mix(table: SamplerTable, image_latents: Tensor | None, noise: Tensor) -> Tensor:
    """Return x_0 in float32: the sampler's start coefficients applied to image and noise."""
    of_image, of_noise = table.start
    sample = of_noise * noise.float()
    return sample if image_latents is None else of_image * image_latents.float() + sample
