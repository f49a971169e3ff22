"""LoRAs are loaded by name, and added to text encoders and to the rows that ask for them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runnables.extensions.base import Call, Stacked
from runnables.extensions.from_folder import FromFolder
from runnables.extensions.hooks import HookedCall, hooked
from runnables.extensions.lora.file import read
from runnables.extensions.lora.layers import Lora, LoraSet, adapting, everywhere, uses
from runnables.parameters import Parameters


@dataclass(frozen=True)
class Loaded:
    """The LoRAs of a request, with their weights in the denoiser and in the text encoders."""

    denoiser: LoraSet
    text: LoraSet


class Loras(FromFolder[Lora]):
    """This extension serves the LoRAs of the operator's folder to one model."""

    name = "loras"
    setting = "lora_dir"
    mixes = True
    adapts = True

    def read(self, name: str, path: Path) -> Lora:
        return read(name, path, self.family)

    def load(self, parameters: Parameters) -> Loaded:
        denoiser: dict[Lora, float] = {}
        text: dict[Lora, float] = {}
        for use in parameters.loras:
            lora = self._library.get(use.name)
            denoiser[lora] = denoiser.get(lora, 0.0) + use.weight
            text[lora] = text.get(lora, 0.0) + use.in_text
        return Loaded(tuple(denoiser.items()), tuple(text.items()))

    def text(self, loaded: Loaded) -> LoraText:
        return LoraText(loaded.text, self.family.device)

    def stack(self, stacked: Stacked, parts: Sequence[Loaded | None]) -> Call | None:
        every, family = [parts[index] for index in stacked.order], self.family
        sets = [part.denoiser if part else () for part in every]
        active = uses(sets, family.device)
        hooks = adapting(family.denoiser, family.denoiser_name, active)
        return HookedCall(hooks) if hooks else None


@dataclass(frozen=True)
class LoraText:
    """This addition puts the LoRAs of a request into its text encoders.

    Attributes:
        device: that the text encoders run on.
    """

    loras: LoraSet
    device: torch.device

    @property
    def key(self) -> Hashable:
        return tuple((lora.number, weight) for lora, weight in self.loras)

    def around(self, component: str, model: Any) -> AbstractContextManager[None]:
        return hooked(adapting(model, component, everywhere(self.loras, self.device)))

    def vocabulary(self, tokenizer: Any, index: int) -> None:
        return None
