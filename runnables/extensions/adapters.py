"""What requests may add to one model: everything the operator has put into its folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import nn

from runnables.checkpoints.library import Library
from runnables.extensions.controlnet import folder as controlnet_folder
from runnables.extensions.controlnet.residuals import ControlNet
from runnables.extensions.lora.file import read
from runnables.extensions.lora.layers import Lora, LoraSet
from runnables.extensions.textual_inversion import file as inversion_file
from runnables.extensions.textual_inversion import vocabulary as inversion
from runnables.extensions.textual_inversion.vocabulary import Concept, Concepts

if TYPE_CHECKING:
    from runnables.families.base import Pipeline
    from runnables.parameters import ControlNetUse, LoraUse, Parameters
    from runnables.settings import Settings


class Adapters:
    """The libraries of one pipeline.

    Args:
        adopt: brings a module to the accelerator.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        adopt: Callable[[nn.Module], None] = lambda module: None,
    ) -> None:
        budget = settings.adapters_memory_mb * 1e6
        self.loras: Library[Lora] = Library(
            settings.lora_dir,
            "*.safetensors",
            lambda name, path: read(name, path, pipeline),
            field=("loras", "SD_LORA_DIR"),
            budget=budget,
        )
        self.controlnets: Library[ControlNet] = Library(
            settings.controlnet_dir,
            "*/config.json",
            lambda name, path: controlnet_folder.load(name, path.parent, pipeline, adopt),
            field=("controlnets", "SD_CONTROLNET_DIR"),
            budget=budget,
        )
        self.embeddings: Library[Concept] = Library(
            settings.embeddings_dir,
            "*.safetensors",
            lambda name, path: inversion_file.read(name, path, pipeline),
            field=("embeddings", "SD_EMBEDDINGS_DIR"),
            budget=budget,
        )

    @property
    def nbytes(self) -> int:
        """Of what is loaded."""
        return self.loras.nbytes + self.controlnets.nbytes + self.embeddings.nbytes

    def lora_set(self, wanted: Sequence[LoraUse]) -> LoraSet:
        """Raises UnknownName, or InvalidInput where one is for another model."""
        weights: dict[Lora, float] = {}
        for use in wanted:
            lora = self.loras.get(use.name)
            weights[lora] = weights.get(lora, 0.0) + use.weight
        return tuple(weights.items())

    def controlnet_set(self, wanted: Sequence[ControlNetUse]) -> tuple[ControlNet, ...]:
        """In the order asked for. Raises UnknownName, or InvalidInput as `lora_set`."""
        return tuple(self.controlnets.get(use.name) for use in wanted)

    def concepts(self, parameters: Parameters) -> Concepts:
        """Raises UnknownName, or InvalidInput where they do not fit the model or one another."""
        concepts = tuple(self.embeddings.get(name) for name in dict.fromkeys(parameters.embeddings))
        prompts = {name: getattr(parameters, name) for name in ("prompt", "negative_prompt")}
        inversion.check(concepts, **prompts)
        return concepts
