"""The cache of encoded prompts is bounded, in number and in bytes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import pytest
import torch

from runnables.engine import prompts
from runnables.engine.prompts import Prompts
from runnables.extensions.lora.extension import LoraText
from runnables.extensions.lora.layers import Factors, Lora
from runnables.families.text.prompts import Embedding, Text


class Encoder:
    """A model whose encodings take a byte for each character, and two for all of a prompt."""

    number = 0

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[Text]) -> list[Embedding]:
        self.encoded += [text.prompt for text in texts]
        byte = partial(torch.zeros, dtype=torch.uint8)
        return [Embedding(byte(len(text.prompt), 1), byte(2)) for text in texts]


def encode(cache: Prompts, model: Any, *texts: str) -> list[str]:
    """Return the prompts that the cache had to encode for these."""
    before = len(model.encoded)
    cache.trim()
    cache.encode((model, Text(text)) for text in texts)
    return model.encoded[before:]


@pytest.mark.parametrize(
    ("size", "most", "left"), [(9, 100.0, []), (2, 100.0, ["a" * 8]), (9, 25.0, ["a" * 8])]
)
def test_the_oldest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, size: int, most: float, left: list[str]
) -> None:
    """Three of ten bytes each."""
    monkeypatch.setattr(prompts, "MOST_BYTES", most)
    cache, model = Prompts(size), Encoder()
    every = ["a" * 8, "b" * 8, "c" * 8]
    assert encode(cache, model, *every) == every
    assert encode(cache, model, *every) == left


def test_those_of_a_model_that_is_gone_are_forgotten_and_no_others() -> None:
    cache, gone, other = Prompts(9), Encoder(), Encoder()
    other.number = 1
    for model in (gone, other):
        assert encode(cache, model, "a cat") == ["a cat"]
    cache.forget(cast(Any, gone))
    assert encode(cache, other, "a cat") == []
    assert encode(cache, gone, "a cat") == ["a cat"]


def test_a_lora_that_was_evicted_is_freed_though_its_prompt_is_kept() -> None:
    cache, model = Prompts(9), Encoder()
    lora = Lora("ink", {"unet": {"layer": Factors(torch.zeros(2, 2), torch.zeros(2, 2))}})
    other = Lora("ink", lora.parts)
    texts = [
        Text("a cat", additions=(LoraText(((one, weight),), torch.device("cpu")),))
        for one, weight in ((lora, 1.0), (lora, 0.5), (other, 1.0), (lora, 1.0))
    ]
    for text in texts:
        cache.encode([(cast(Any, model), text)])
    assert model.encoded == ["a cat"] * 3, "another file or weight is another encoding"
    freed = weakref.ref(lora)
    del lora, texts, text
    gc.collect()
    assert freed() is None
