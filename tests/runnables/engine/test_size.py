"""Sizes are taken as asked, or refused with the nearest that can be had; never changed silently."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image

from runnables.engine.size import size_of
from runnables.errors import InvalidInput, PayloadTooLarge
from runnables.families.base import Pipeline
from runnables.parameters import ImageToImage, TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.insides import base_of

LIMIT = 128 * 128


@pytest.fixture(scope="module")
def pipeline(start: Callable[..., StableDiffusionRunnable]) -> Pipeline:
    """Native size 64x64, sides multiples of 8."""
    return base_of(start("sd1"))


def test_as_asked_or_native(pipeline: Pipeline) -> None:
    assert size_of(TextToImage(prompt="x"), None, pipeline, LIMIT) == (64, 64)
    assert size_of(TextToImage(prompt="x", height=96), None, pipeline, LIMIT) == (96, 64)


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(200, 100, (48, 88)), (64, 64, (64, 64)), (30, 90, (112, 40))]
)
def test_an_input_keeps_its_shape(
    width: int, height: int, expected: tuple[int, int], pipeline: Pipeline
) -> None:
    photo = Image.new("RGB", (width, height))
    assert size_of(ImageToImage(prompt="x"), photo, pipeline, LIMIT) == expected
    assert size_of(ImageToImage(prompt="x", width=72), photo, pipeline, LIMIT) == (64, 72)


def test_what_cannot_be_had_names_the_nearest(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidInput, match="nearest is 96") as refused:
        size_of(TextToImage(prompt="x", width=99), None, pipeline, LIMIT)
    assert refused.value.loc == ("width",)
    with pytest.raises(PayloadTooLarge, match="136 x 128"):
        size_of(TextToImage(prompt="x", height=136, width=128), None, pipeline, LIMIT)
    with pytest.raises(InvalidInput, match="too long and thin"):
        size_of(ImageToImage(prompt="x"), Image.new("RGB", (9000, 1)), pipeline, LIMIT)
