"""Lists what the embedded model knows, for the hint that the service gives with its images."""

from __future__ import annotations

import json
from pathlib import Path

from models.training.captions import SCENE_WORDS
from models.training.concepts import concepts, keywords
from models.training.draw import SHAPES

#: things that it draws best, of many kinds
EXAMPLES = (
    "heart",
    "butterfly",
    "pizza",
    "car",
    "penguin",
    "castle",
    "birthday cake",
    "hamburger",
    "laptop",
    "camera",
    "sunset",
    "mountains",
)


def names(work: Path) -> set[str]:
    """Return every name of a thing, a shape or a scene, without articles, in lower case."""
    further = keywords(work)
    things = {word for one in concepts().values() for word in (one.name, *one.synonyms)}
    things |= {word for words in further.values() for word in words}
    scenes = {_bare(words) for every in SCENE_WORDS.values() for words in every}
    return {word.lower() for word in {*things, *scenes, *SHAPES}}


def write(folder: Path, work: Path) -> None:
    """Write vocabulary.json into the model's folder."""
    content = {"examples": list(EXAMPLES), "names": sorted(names(work))}
    (folder / "vocabulary.json").write_text(json.dumps(content, ensure_ascii=False) + "\n")


def _bare(words: str) -> str:
    for article in ("a ", "an ", "the "):
        words = words.removeprefix(article)
    return words
