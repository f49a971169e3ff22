"""Textual inversions are words of one request, known only while its prompts are encoded."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from runnables.extensions.from_folder import FromFolder
from runnables.extensions.textual_inversion import file, vocabulary
from runnables.extensions.textual_inversion.vocabulary import Concept, Concepts, Vocabulary
from runnables.families.text.prompts import texts_of
from runnables.families.unet import UNetFamily
from runnables.parameters import Parameters


class TextualInversions(FromFolder[Concept]):
    """This extension serves the textual inversions of the operator's folder to one model."""

    name = "embeddings"
    setting = "embeddings_dir"
    mixes = True

    def read(self, name: str, path: Path) -> Concept:
        return file.read(name, path, cast(UNetFamily, self.family))

    def load(self, parameters: Parameters) -> Concepts:
        concepts = tuple(self._library.get(name) for name in dict.fromkeys(parameters.embeddings))
        vocabulary.check(concepts, texts_of(parameters))
        return concepts

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
