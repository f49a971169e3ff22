"""LoRAs are loaded by name, and added to text encoders and to the rows that ask for them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runnables.checkpoints.library import Library
from runnables.extensions.base import Call, Context, Denoise, Extension, Stacked
from runnables.extensions.hooks import Hook, hooked
from runnables.extensions.lora.file import read
from runnables.extensions.lora.layers import Lora, LoraSet, adapting, everywhere, uses
from runnables.families.base import Family
from runnables.parameters import Parameters


@dataclass(frozen=True)
class Loaded:
    """The LoRAs of a request, with their weights in the denoiser and in the text encoders."""

    denoiser: LoraSet
    text: LoraSet


class Loras(Extension):
    """This extension serves the LoRAs of the operator's folder to one model."""

    name = "loras"
    mixes = True

    def __init__(self, family: Family, context: Context) -> None:
        super().__init__(family, context)
        settings = context.settings
        self._library: Library[Lora] = Library(
            settings.lora_dir,
            "*.safetensors",
            lambda name, path: read(name, path, family),
            field=("loras", "SD_LORA_DIR"),
            budget=settings.adapters_memory_mb * 1e6,
        )

    def check(self, parameters: Parameters) -> None:
        for use in parameters.loras:
            self._library.find(use.name)

    def load(self, parameters: Parameters) -> Loaded:
        denoiser: dict[Lora, float] = {}
        text: dict[Lora, float] = {}
        for use in parameters.loras:
            lora = self._library.get(use.name)
            denoiser[lora] = denoiser.get(lora, 0.0) + use.weight
            text[lora] = text.get(lora, 0.0) + use.in_text
        return Loaded(tuple(denoiser.items()), tuple(text.items()))

    @property
    def nbytes(self) -> int:
        return self._library.nbytes

    def text(self, loaded: Loaded) -> LoraText:
        return LoraText(loaded.text, self.family.device)

    def stack(self, stacked: Stacked, parts: Sequence[Loaded | None]) -> Call | None:
        every, family = [parts[index] for index in stacked.order], self.family
        sets = [part.denoiser if part else () for part in every]
        active = uses(sets, family.device)
        hooks = adapting(family.denoiser, family.denoiser_name, active)
        return LoraCall(hooks) if hooks else None


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


class LoraCall(Call):
    """This call runs the LoRAs of a batch, each on its rows."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = hooks

    def around(self, denoise: Denoise) -> Denoise:
        def adapted(sample: Tensor, timesteps: Tensor, **extra: Any) -> Tensor:
            with hooked(self._hooks):
                return denoise(sample, timesteps, **extra)

        return adapted
