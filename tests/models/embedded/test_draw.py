"""The world the model is trained on."""

from __future__ import annotations

import random

import numpy as np
import pytest

from models.training import draw
from models.training.draw import Subject


@pytest.mark.parametrize("shape", draw.SHAPES)
def test_shapes_have_their_colour_inside_and_the_background_around(shape: str) -> None:
    subject = Subject(shape, "red", "blue")
    picture = draw.render(subject, random.Random(0))
    assert np.abs(picture[60:68, 60:68].mean((0, 1)) - draw.COLOURS["red"]).max() < 0.05
    assert np.abs(picture[:8, :8].mean((0, 1)) - draw.COLOURS["blue"]).max() < 0.05


@pytest.mark.parametrize("scene", draw.SCENES)
@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_scenes_fill_the_picture(scene: str, size: tuple[int, int]) -> None:
    picture = draw.render(Subject(scene=scene), random.Random(1), *size)
    assert picture.shape == (*size, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture.std() > 0.05


def test_a_seed_gives_the_same_picture_and_caption() -> None:
    def make() -> tuple[Subject, str, float]:
        rng = random.Random(5)
        subject = draw.subject(rng)
        return subject, draw.caption(subject, rng), float(draw.render(subject, rng).sum())

    assert make() == make()


def test_captions_tell_everything() -> None:
    rng = random.Random(0)
    for _ in range(200):
        subject = draw.subject(rng, 0.0)
        text = draw.caption(subject, rng)
        assert subject.colour != subject.background
        for word in (subject.shape, subject.colour, subject.background):
            assert word in text


def test_every_combination_is_drawn() -> None:
    rng = random.Random(0)
    subjects = {draw.subject(rng, 0.0) for _ in range(4000)}
    assert len({(one.shape, one.colour, one.background) for one in subjects}) == 6 * 8 * 7
    assert len({(one.size, one.place) for one in subjects}) == 15
