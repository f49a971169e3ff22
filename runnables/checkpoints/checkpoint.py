"""This module describes a loaded model, whatever it was loaded from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from runnables.checkpoints.components import refusal
from runnables.checkpoints.families import FAMILIES, LATENT_CONSISTENCY
from runnables.checkpoints.quantization import bytes_of
from runnables.checkpoints.vocabulary import Vocabulary
from runnables.errors import InvalidInput, UnknownName
from runnables.parameters import Profile


@dataclass(frozen=True)
class Compiled:
    """This class says what a compiled model takes.

    Attributes:
        sizes: (height, width) in pixels.
        rows: denoiser rows of every call.
    """

    sizes: tuple[tuple[int, int], ...]
    rows: int

    def check(self, size: tuple[int, int]) -> None:
        """Raise InvalidInput where this (height, width) is not compiled, naming those that are."""
        if size not in self.sizes:
            named = ", ".join(f"{height}x{width}" for height, width in self.sizes)
            raise InvalidInput(
                f"{size[0]}x{size[1]} (height x width) is not compiled; compiled are {named}",
                loc=("height",),
            )


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint is a loaded model, on the CPU, in evaluation mode, without gradients.

    Attributes:
        name: for people and for `GET /models`; the folder's, file's or repository's last part.
        family: a key of `FAMILIES`.
        components: those that the model has, by their names in model_index.json, without the
            scheduler.
        scheduler_config: scheduler_config.json with `_class_name`.
        profile: defaults of the parameters that requests leave out.
        config: model_index.json.
        compiled: what it takes, where its shapes are static.
        vocabulary: the names of what it knows, where it lists them.
    """

    name: str
    family: str
    components: Mapping[str, Any]
    scheduler_config: dict[str, Any]
    profile: Profile
    config: dict[str, Any]
    compiled: Compiled | None = None
    vocabulary: Vocabulary | None = None

    def __getattr__(self, name: str) -> Any:
        """Return a component by its name."""
        try:
            return self.__dict__["components"][name]
        except KeyError as error:
            raise AttributeError(f"this checkpoint has no {name}") from error

    def all_of(self, kind: str) -> tuple[Any, ...]:
        """Return the components `kind`, `kind_2`, `kind_3` that the model has, in this order."""
        names = (kind, f"{kind}_2", f"{kind}_3")
        return tuple(self.components[name] for name in names if name in self.components)

    @property
    def denoiser(self) -> Any:
        """Return the component that predicts noise or velocity."""
        return self.components[FAMILIES[self.family].denoiser]

    @property
    def text_encoders(self) -> tuple[Any, ...]:
        return self.all_of("text_encoder")

    @property
    def tokenizers(self) -> tuple[Any, ...]:
        return self.all_of("tokenizer")

    @property
    def modules(self) -> list[nn.Module]:
        """Return all parts with weights; none of a compiled model, which has them on its device."""
        return [part for part in self.components.values() if isinstance(part, nn.Module)]

    @property
    def nbytes(self) -> int:
        """Return the bytes of all weights."""
        return sum(self.sizes.values())

    @property
    def sizes(self) -> dict[str, int]:
        """Return component -> bytes of its weights."""
        return {
            name: sum(bytes_of(weight) for weight in part.parameters())
            for name, part in self.components.items()
            if isinstance(part, nn.Module)
        }


def profile_of(family: str, scheduler_config: Mapping[str, Any], own: Mapping[str, Any]) -> Profile:
    """Return the family's defaults, with the model's own before them.

    Raises:
        ConfigurationError: `own`, the content of profile.json, is no profile.
    """
    distilled = scheduler_config["_class_name"] == "LCMScheduler"
    defaults = {**FAMILIES[family].defaults, **(LATENT_CONSISTENCY if distilled else {}), **own}
    try:
        return Profile(**defaults)
    except (ValueError, UnknownName) as error:
        raise refusal(f"profile.json: {error}") from error
