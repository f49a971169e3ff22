"""This cache of encoded prompts is filled for a batch of requests in few calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable

from runnables.families.base import Family
from runnables.families.text.prompts import Embedding, Text

Key = tuple[int, Hashable]  # the family's number, and the text's key
MOST_BYTES = 256e6  # on the device: one of 32,000 characters takes 67 MB of it in SDXL


class Prompts:
    """The cache keeps the last `size` encodings that were used, of all loaded models.

    It keeps fewer where they take more than `MOST_BYTES`.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._embeddings: OrderedDict[Key, Embedding] = OrderedDict()

    def encode(self, wanted: Iterable[tuple[Family, Text]]) -> None:
        """Encode the prompts that the cache lacks, in one call per model."""
        missing: dict[int, tuple[Family, dict[Text, None]]] = {}
        for family, text in wanted:
            if (family.number, text.key) not in self._embeddings:
                missing.setdefault(family.number, (family, {}))[1][text] = None
        for number, (family, texts) in missing.items():
            for text, embedding in zip(texts, family.encode(list(texts)), strict=True):
                self._embeddings[number, text.key] = embedding

    def pair(
        self, family: Family, text: Text, negative: Text | None
    ) -> tuple[Embedding, Embedding | None]:
        """Return a text and, where it is guided, the negative one, of one length."""
        own = self._one(family, text)
        if negative is None:
            return own, None
        empty = family.empty(own) if negative.is_empty else None
        if empty is not None:
            return own, empty
        other = self._one(family, negative)
        tokens = max(len(own.hidden_states), len(other.hidden_states))
        if len(own.hidden_states) == len(other.hidden_states):
            return own, other
        return (
            family.lengthen(own, tokens, self._one(family, text.emptied())),
            family.lengthen(other, tokens, self._one(family, negative.emptied())),
        )

    def trim(self) -> None:
        """Forget those that were used longest ago."""
        nbytes = sum(one.nbytes for one in self._embeddings.values())
        while len(self._embeddings) > self._size or nbytes > MOST_BYTES:
            _, oldest = self._embeddings.popitem(last=False)
            nbytes -= oldest.nbytes

    def clear(self) -> None:
        """Forget all of them."""
        self._embeddings.clear()

    def forget(self, family: Family) -> None:
        """Forget the encodings of a model that is gone."""
        for key in [key for key in self._embeddings if key[0] == family.number]:
            del self._embeddings[key]

    def _one(self, family: Family, text: Text) -> Embedding:
        key = (family.number, text.key)
        if key not in self._embeddings:
            (self._embeddings[key],) = family.encode([text])
        self._embeddings.move_to_end(key)
        return self._embeddings[key]
