"""What a loaded model is, whatever it was loaded from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from runnables.checkpoints.catalog import FAMILY_DEFAULTS, LATENT_CONSISTENCY, Family
from runnables.checkpoints.components import refusal
from runnables.errors import InvalidInput, UnknownName
from runnables.parameters import Profile

#: class in model_index.json -> family; the task in the name does not matter, as any model does all
FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": "stable-diffusion",
    "StableDiffusionImg2ImgPipeline": "stable-diffusion",
    "StableDiffusionInpaintPipeline": "stable-diffusion",
    "LatentConsistencyModelPipeline": "stable-diffusion",
    "StableDiffusionXLPipeline": "stable-diffusion-xl",
    "StableDiffusionXLImg2ImgPipeline": "stable-diffusion-xl",
    "StableDiffusionXLInpaintPipeline": "stable-diffusion-xl",
}


@dataclass(frozen=True)
class Compiled:
    """What a compiled model takes.

    Attributes:
        sizes: (height, width) in pixels.
        rows: UNet rows of every call.
    """

    sizes: tuple[tuple[int, int], ...]
    rows: int

    def check(self, size: tuple[int, int]) -> None:
        """Raises InvalidInput where this (height, width) is not compiled, naming those that are."""
        if size not in self.sizes:
            named = ", ".join(f"{height}x{width}" for height, width in self.sizes)
            raise InvalidInput(
                f"{size[0]}x{size[1]} (height x width) is not compiled; compiled are {named}",
                loc=("height",),
            )


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded model, on the CPU, in evaluation mode, without gradients.

    Attributes:
        name: for people and for `GET /models`; the folder's, file's or repository's last part.
        tokenizers, text_encoders: in the family's order (SDXL: two, its refiner: the second).
        scheduler_config: scheduler_config.json with `_class_name`.
        safety_checker, feature_extractor: None where the model ships none.
        profile: defaults of the parameters that requests leave out.
        config: model_index.json.
        compiled: what it takes, where its shapes are static.
    """

    name: str
    family: Family
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    unet: Any
    vae: Any
    scheduler_config: dict[str, Any]
    safety_checker: Any
    feature_extractor: Any
    profile: Profile
    config: dict[str, Any]
    compiled: Compiled | None = None

    @property
    def modules(self) -> list[nn.Module]:
        """All parts with weights; none of a compiled model, which has them on its device."""
        parts = [self.unet, self.vae, *self.text_encoders, self.safety_checker]
        return [part for part in parts if isinstance(part, nn.Module)]

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        weights = (weight for part in self.modules for weight in part.parameters())
        return sum(weight.numel() * weight.element_size() for weight in weights)


def family_of(index: Mapping[str, Any]) -> Family:
    """The family of a model_index.json.

    Raises:
        ConfigurationError: naming the classes that are supported.
    """
    name = index.get("_class_name")
    if name not in FAMILIES:
        raise refusal(f"{name} is not supported; supported are {', '.join(FAMILIES)}")
    if index.get("requires_aesthetics_score", False):
        return "stable-diffusion-xl-refiner"
    return FAMILIES[name]


def profile_of(
    family: Family, scheduler_config: Mapping[str, Any], own: Mapping[str, Any]
) -> Profile:
    """The family's defaults, with the model's own before them.

    Raises:
        ConfigurationError: `own`, the content of profile.json, is no profile.
    """
    distilled = scheduler_config["_class_name"] == "LCMScheduler"
    defaults = {**FAMILY_DEFAULTS[family], **(LATENT_CONSISTENCY if distilled else {}), **own}
    try:
        return Profile(**defaults)
    except (ValueError, UnknownName) as error:
        raise refusal(f"profile.json: {error}") from error
