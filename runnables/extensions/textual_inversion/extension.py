"""Textual inversions are words of one request, known only while its prompts are encoded."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

from runnables.checkpoints.library import Library
from runnables.extensions.base import Context, Extension
from runnables.extensions.textual_inversion import file, vocabulary
from runnables.extensions.textual_inversion.vocabulary import Concept, Concepts, Vocabulary
from runnables.families.base import Family
from runnables.families.text.prompts import texts_of
from runnables.families.unet import UNetFamily
from runnables.parameters import Parameters


class TextualInversions(Extension):
    """This extension serves the textual inversions of the operator's folder to one model."""

    name = "embeddings"
    mixes = True

    def __init__(self, family: Family, context: Context) -> None:
        super().__init__(family, context)
        settings = context.settings
        clip = cast(UNetFamily, family)
        self._library: Library[Concept] = Library(
            settings.embeddings_dir,
            "*.safetensors",
            lambda name, path: file.read(name, path, clip),
            field=("embeddings", "SD_EMBEDDINGS_DIR"),
            budget=settings.adapters_memory_mb * 1e6,
        )

    def check(self, parameters: Parameters) -> None:
        for name in parameters.embeddings:
            self._library.find(name)

    def load(self, parameters: Parameters) -> Concepts:
        concepts = tuple(self._library.get(name) for name in dict.fromkeys(parameters.embeddings))
        vocabulary.check(concepts, texts_of(parameters))
        return concepts

    @property
    def nbytes(self) -> int:
        return self._library.nbytes

    def text(self, loaded: Concepts) -> ConceptText:
        return ConceptText(loaded)


@dataclass(frozen=True)
class ConceptText:
    """This addition puts the words of a request into its text encoders."""

    concepts: Concepts

    @property
    def key(self) -> Hashable:
        return tuple(concept.number for concept in self.concepts)

    def around(self, component: str, model: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def vocabulary(self, tokenizer: Any, index: int) -> Vocabulary:
        return Vocabulary(tokenizer, self.concepts, index)
