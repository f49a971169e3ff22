"""The base of the ControlNets of all families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor

from runnables.families.base import Conditioning, Family, Size
from runnables.families.latents import image_to_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

#: what a ControlNet adds, for each kind of the denoiser's blocks
Added = tuple[Sequence[Tensor], ...]


class Run(NamedTuple):
    """A run has one ControlNet's rows of a batch.

    Attributes:
        rows: (n,) their numbers among the denoiser's U; None: these are all, in order.
        images: (n, ...) as `ControlNet.prepare` makes them.
        weights: (n,) in the model's dtype.
        conditioning: stacked, n rows.
    """

    net: ControlNet
    rows: Tensor | None
    images: Tensor
    weights: Tensor
    conditioning: Conditioning


class ControlNet(ABC):
    """This is a loaded ControlNet, on the model's device and in its dtype."""

    #: diffusers' class
    class_name: ClassVar[str]
    #: whether it is kept from unconditional rows
    conditional_only = False

    def __init__(self, name: str, model: Any, family: Family) -> None:
        self.name = name
        self.model = model
        self.nbytes = sum(weights.nbytes for weights in model.parameters())
        self.family = family

    @staticmethod
    @abstractmethod
    def difference(config: Mapping[str, Any], family: Family) -> str | None:
        """Return, in words, where a config does not fit a family's model."""

    @abstractmethod
    def prepare(self, picture: Image, size: Size) -> Tensor:
        """Return a control image of (height, width) pixels as the ControlNet takes it."""

    @abstractmethod
    def call(self, sample: Tensor, timesteps: Tensor, run: Run) -> Added:
        """Return what it adds inside the denoiser, each tensor (n, ...) of n rows.

        Args:
            sample: (n, latent_channels, h, w), scaled as the sampler asks.
            timesteps: (n,) float32.
        """

    @abstractmethod
    def packed(self, added: Added) -> Any:
        """Return the sum of what several ControlNets add, as the family's `denoise` takes it."""

    def blockwise(self, added: Added) -> Added:
        """Return a tensor for every block of the denoiser, where fewer stand for all of them."""
        return added

    def sum(self, one: Added, other: Added) -> Added:
        """Return the sum of what two ControlNets of one model add; they may differ in depth."""
        if [len(part) for part in one] != [len(part) for part in other]:
            one, other = self.blockwise(one), self.blockwise(other)
        return tuple(
            [a + b for a, b in zip(first, second, strict=True)]
            if first and second
            else first or second
            for first, second in zip(one, other, strict=True)
        )

    def latents(self, picture: Image, size: Size, *, shifted: bool = True) -> Tensor:
        """Return the picture's latents (C, h, w): the mean, where diffusers draws a sample."""
        vae, config = self.family.vae, self.family.vae.config
        pixels = image_to_pixels(picture, size).to(self.family.device, vae.dtype)
        latents: Tensor = vae.encode(pixels).latent_dist.mode()[0]
        shift = float(config.shift_factor or 0.0) if shifted else 0.0
        return (latents - shift) * float(config.scaling_factor)


def spread(part: Sequence[Tensor], depth: int, interval: float) -> Sequence[Tensor]:
    """Return a tensor for each of `depth` blocks: one stands for `interval` of them."""
    return [part[int(block / interval)] for block in range(depth)] if part else part


def unlike(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Return, in words, the first field of a config that is not as it is wanted."""
    for name, value in wanted.items():
        if _plain(config.get(name)) != _plain(value):
            return f"{name} is {config.get(name)}, not {value}"
    return None


def _plain(value: Any) -> Any:
    """Return a value with lists as tuples: JSON has only lists."""
    return list(value) if isinstance(value, tuple | list) else value
