"""The world the model is trained on."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from models.training import draw
from models.training.captions import WHERE
from models.training.concepts import concepts
from models.training.packages import KEYWORDS, fetch
from models.training.sprites import SIZE
from models.training.subject import Subject


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


def test_things_stand_on_their_ground() -> None:
    sprite = np.zeros((SIZE, SIZE, 4), np.uint8)
    sprite[16:-16, 16:-16] = (0, 255, 0, 255)
    sprites = {("cat", "3d"): sprite, ("dog", "3d"): sprite // 2}
    one = Subject(background="red", thing="cat", style="3d")
    picture = draw.render(one, random.Random(0), sprites=sprites)
    assert np.abs(picture[60:68, 60:68] - (0, 1, 0)).max() < 0.01
    assert np.abs(picture[:8, :8].mean((0, 1)) - draw.COLOURS["red"]).max() < 0.05
    two = Subject(background="white", thing="cat", style="3d", other="dog")
    picture = draw.render(two, random.Random(0), sprites=sprites)
    assert picture[64:72, 32].mean((0, 1)) != pytest.approx(picture[64:72, 96].mean((0, 1)))


def test_captions_of_things_say_what_and_where() -> None:
    rng = random.Random(0)
    known = concepts()
    for _ in range(300):
        subject = draw.thing(rng)
        text = draw.caption(subject, rng).lower()
        names = [subject.thing, *known[subject.thing].synonyms]
        assert any(name.lower() in text or name.lower()[:-1] in text for name in names)
        if subject.scene and not subject.other:
            assert any(where in text for where in WHERE[subject.scene])
        if subject.background:
            assert subject.background in text


def test_concepts_have_names_of_their_own() -> None:
    words = [word for one in concepts().values() for word in (one.name, *one.synonyms)]
    assert len(words) == len(set(words))
    assert len(concepts()) >= 300


def test_a_package_with_another_digest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "npm").mkdir()
    (tmp_path / "npm" / KEYWORDS.archive).write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not the archive of emojilib"):
        fetch(KEYWORDS, tmp_path)
