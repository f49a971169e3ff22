"""These tests check what a demo model says about prompts that it cannot draw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runnables.checkpoints import vocabulary
from runnables.errors import ConfigurationError
from runnables.settings import EMBEDDED_MODEL

KNOWN = vocabulary.Vocabulary(("cat", "alarm clock"), frozenset({"cat", "fox", "alarm clock"}))


@pytest.mark.parametrize(
    "prompt", ["a cat", "Two CATS!", "foxes, 4k", "an old alarm clock", "a (cat:1.2)"]
)
def test_a_known_name_is_found(prompt: str) -> None:
    assert "none of these words" not in KNOWN.hint(prompt)


@pytest.mark.parametrize(
    "prompt", ["", "a sofa", "concatenate", "cat-like", "alarm", "clock alarm", "猫"]
)
def test_an_unknown_one_is_told_with_what_is_known(prompt: str) -> None:
    hint = KNOWN.hint(prompt)
    assert "none of these words" in hint
    assert "cat, alarm clock" in hint


def test_most_models_list_nothing(tmp_path: Path) -> None:
    assert vocabulary.read(tmp_path) is None


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"examples": 1, "names": []}'])
def test_a_spoilt_list_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / vocabulary.NAME).write_text(content)
    with pytest.raises(ConfigurationError, match=vocabulary.NAME):
        vocabulary.read(tmp_path)


def test_the_embedded_model_knows_its_own_examples() -> None:
    listed = vocabulary.read(Path(EMBEDDED_MODEL))
    assert listed is not None
    assert set(listed.examples) <= listed.names
    assert len(json.dumps(listed.hint("quantum spreadsheets"))) < 300
