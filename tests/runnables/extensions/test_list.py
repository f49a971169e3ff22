"""An extension is a class and a line in the list; the engine loops over what the list has."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from torch import Tensor

from runnables import extensions
from runnables.extensions.base import Call, Extension, Stacked
from runnables.families.base import Family
from runnables.parameters import Parameters, TextToImage
from runnables.runnable import StableDiffusionRunnable


class Doubled(Call):
    """This call doubles the model's output."""

    def guide(self, guided: Tensor, output: Tensor) -> Tensor:
        return guided * 2


class Stub(Extension):
    """A further extension, as somebody else would add it, which every request has."""

    name = "stub"

    @classmethod
    def suits(cls, family: Family) -> bool:
        return True

    def wanted(self, parameters: Parameters) -> bool:
        return True

    def stack(self, stacked: Stacked, parts: Sequence[Any]) -> Call:
        return Doubled()


@pytest.mark.parametrize("place", extensions.EXTENSIONS)
def test_every_line_names_an_extension(place: str) -> None:
    assert issubclass(pkgutil.resolve_name(place), Extension)


def test_a_line_is_all_that_a_new_extension_needs(
    start: Callable[..., StableDiffusionRunnable], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = TextToImage(prompt="a cat", num_inference_steps=3, seed=1)
    plain = start("sd1").txt2img(request).images[0].image
    monkeypatch.setattr(extensions, "EXTENSIONS", [*extensions.EXTENSIONS, f"{__name__}:Stub"])
    assert start("sd1").txt2img(request).images[0].image.tobytes() != plain.tobytes()


def test_by_default_it_adds_nothing() -> None:
    one, request = Stub.__new__(Stub), TextToImage(prompt="x")
    assert one.cost(request) == one.beside(request) == one.extra_rows(request) == one.nbytes == 0
