"""A size is taken as requested, or refused with the nearest one; it never changes silently."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image

from runnables.engine.size import check_pixels, size_of
from runnables.errors import InvalidInput, PayloadTooLarge
from runnables.families.base import Traits
from runnables.parameters import ImageToImage, TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.insides import base_of

LIMIT = 128 * 128


@pytest.fixture(scope="module")
def traits(start: Callable[..., StableDiffusionRunnable]) -> Traits:
    """Return traits of native size 64x64, sides multiples of 8."""
    found: Traits = base_of(start("sd1")).traits
    return found


def test_exactly_as_many_pixels_as_allowed(traits: Traits) -> None:
    assert size_of(TextToImage(prompt="x", height=128, width=128), None, traits, LIMIT)
    with pytest.raises(PayloadTooLarge):
        size_of(TextToImage(prompt="x", height=128, width=128), None, traits, LIMIT - 1)
    check_pixels((10, 10), 100, ("height",))
    with pytest.raises(PayloadTooLarge):
        check_pixels((10, 10), 99, ("height",))


def test_as_requested_or_native(traits: Traits) -> None:
    assert size_of(TextToImage(prompt="x"), None, traits, LIMIT) == (64, 64)
    assert size_of(TextToImage(prompt="x", height=96), None, traits, LIMIT) == (96, 64)


@pytest.mark.parametrize(
    ("width", "height", "expected", "of_width"),
    [
        (200, 100, (48, 88), (32, 72)),
        (64, 64, (64, 64), (72, 72)),
        (30, 90, (112, 40), (216, 72)),
    ],
)
def test_an_input_keeps_its_shape(
    width: int,
    height: int,
    expected: tuple[int, int],
    of_width: tuple[int, int],
    traits: Traits,
) -> None:
    photo = Image.new("RGB", (width, height))
    assert size_of(ImageToImage(prompt="x"), photo, traits, LIMIT) == expected
    assert size_of(ImageToImage(prompt="x", width=72), photo, traits, LIMIT) == of_width
    both = ImageToImage(prompt="x", width=72, height=64)
    assert size_of(both, photo, traits, LIMIT) == (64, 72)


def test_what_cannot_be_had_names_the_nearest(traits: Traits) -> None:
    with pytest.raises(InvalidInput, match="nearest is 96") as refused:
        size_of(TextToImage(prompt="x", width=99), None, traits, LIMIT)
    assert refused.value.loc == ("width",)
    with pytest.raises(PayloadTooLarge, match="136 x 128"):
        size_of(TextToImage(prompt="x", height=136, width=128), None, traits, LIMIT)
    with pytest.raises(InvalidInput, match="too long and thin"):
        size_of(ImageToImage(prompt="x"), Image.new("RGB", (9000, 1)), traits, LIMIT)
