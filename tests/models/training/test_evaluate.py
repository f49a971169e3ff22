"""The judges are right about what is drawn, and the model is what its card says."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from models.training import draw, evaluate, judges
from models.training.subject import Subject


def test_colours_are_judged_right_on_drawn_pictures() -> None:
    rng = random.Random(3)
    for _ in range(100):
        subject = draw.subject(rng, 0.0)
        picture = draw.render(subject, rng)
        assert judges.colours_of(picture, subject) == (subject.colour, subject.background)


def test_wrong_colours_are_judged_wrong() -> None:
    picture = draw.render(Subject("circle", "red", "blue"), random.Random(0))
    asked = Subject("circle", "green", "white")
    assert judges.colours_of(picture, asked) == ("red", "blue")


def test_the_classifier_learns_and_counts(tmp_path: Path) -> None:
    rng = random.Random(0)
    subjects = [draw.subject(rng, 0.5) for _ in range(300)]
    pictures = [draw.render(one, rng) for one in subjects]
    stored = np.stack([(one * 255).round().astype(np.uint8) for one in pictures])
    classifier = judges.train_classifier(stored, subjects, tmp_path, steps=120, batch=32)
    assert judges.accuracy(stored, subjects, classifier) > 0.5, "chance is 5%"
    chosen = [Subject(scene="desert"), Subject("star", "red", "blue")]
    generated = np.stack([draw.render(one, random.Random(1)) for one in chosen])
    right = judges.judge(generated, chosen, classifier)
    assert {name: len(values) for name, values in right.items()} == dict.fromkeys(
        ("foreground", "background", "shape", "scene"), 1
    )


def test_prompts_are_the_same_every_time_and_of_all_kinds() -> None:
    subjects, captions = evaluate.prompts(400)
    assert (subjects, captions) == evaluate.prompts(400)
    assert len(captions) == len(subjects) == 400
    assert len({one.thing for one in subjects if one.thing}) == 240
    assert len({one.scene for one in subjects if one.scene and not one.thing}) == len(draw.SCENES)


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("a red circle on a blue background", Subject("circle", "red", "blue")),
        ("a yellow square on a purple background", Subject("square", "yellow", "purple")),
    ],
)
def test_the_model_draws_what_is_asked(prompt: str, subject: Subject) -> None:
    pipeline = evaluate.load(evaluate.FOLDER)
    pictures = evaluate.draw_all(pipeline, [prompt] * 4)
    right = [
        judges.colours_of(one, subject) == (subject.colour, subject.background) for one in pictures
    ]
    assert sum(right) >= 3


def test_the_card_tells_the_measured_figures() -> None:
    figures = json.loads((evaluate.FOLDER / "figures.json").read_text())
    card = (evaluate.FOLDER / "README.md").read_text()
    for sampler, row in figures["samplers"].items():
        line = next(line for line in card.splitlines() if line.startswith(f"| {sampler} "))
        for value in row.values():
            assert f"{value:.1%}" in line
