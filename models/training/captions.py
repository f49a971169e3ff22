"""Captions: the ways in which people ask for what the model knows."""

from __future__ import annotations

import random

from models.training.concepts import concepts
from models.training.subject import Subject

SCENE_WORDS: dict[str, list[str]] = {
    "night city": [
        "cyberpunk city",
        "city at night",
        "city skyline at night",
        "neon city",
        "futuristic city",
        "night city with neon lights",
        "city at night with neon lights",
        "cyberpunk skyline",
        "futuristic city at night",
        "downtown at night",
        "neon lit streets at night",
        "cyberpunk city at night",
        "skyscrapers at night",
        "cyberpunk street",
        "dark city with glowing windows",
        "sci-fi city",
        "metropolis at night",
    ],
    "day city": [
        "city",
        "city by day",
        "city skyline",
        "city skyline by day",
        "downtown",
        "skyscrapers",
        "modern city in daylight",
        "city on a clear day",
        "town with tall buildings",
        "metropolis",
    ],
    "mountains": [
        "mountains",
        "snowy mountains",
        "mountain range",
        "mountain landscape",
        "the alps",
        "mountain peaks with snow",
        "mountains under a blue sky",
        "a mountain",
    ],
    "sea": [
        "sea",
        "ocean",
        "the sea on a calm day",
        "the ocean with waves",
        "a sailing boat on the sea",
        "blue sea",
        "waves",
        "seascape",
        "a boat on the water",
        "the sea by day",
    ],
    "sunset": [
        "sunset",
        "sunset over the sea",
        "sunrise",
        "a beautiful sunset",
        "sunset at the beach",
        "the setting sun",
        "orange sunset",
        "evening sky with the setting sun",
        "dusk",
    ],
    "forest": [
        "forest",
        "forest with tall trees",
        "trees",
        "pine forest",
        "green forest",
        "woods",
        "a forest in the morning",
        "fir trees",
        "the woods by day",
    ],
    "starry sky": [
        "starry sky",
        "night sky",
        "stars",
        "night sky full of stars",
        "the moon and stars",
        "galaxy of stars",
        "starry night",
        "stars above the hills",
        "the milky way",
    ],
    "desert": [
        "desert",
        "sand dunes",
        "desert with cactus",
        "hot desert",
        "dunes",
        "sahara",
        "cactus in the desert",
        "sandy desert under the sun",
        "a dry desert",
    ],
    "beach": [
        "beach",
        "sandy beach",
        "tropical beach",
        "the beach on a sunny day",
        "seashore",
        "the coast",
        "a beach by the sea",
    ],
    "meadow": [
        "meadow",
        "green hills",
        "green field",
        "grass",
        "grassland under a blue sky",
        "the countryside",
        "rolling hills",
    ],
    "snow": [
        "snow",
        "winter landscape",
        "snowy hills",
        "snowfall",
        "a snowy day",
        "winter",
        "snowy landscape",
    ],
    "moonlight": [
        "full moon at night",
        "moonlit night",
        "the full moon over hills",
        "moonlight",
        "night with a full moon",
        "moonlit landscape",
    ],
    "table": [
        "wooden table",
        "empty table",
        "table",
        "kitchen table",
        "table in a room",
    ],
}
#: how a caption says where a thing is
WHERE: dict[str, list[str]] = {
    "night city": [
        "in a city at night",
        "in a cyberpunk city",
        "in a neon city",
        "in the city at night",
        "over a night city",
    ],
    "day city": ["in a city", "in the city", "in town", "in front of skyscrapers", "downtown"],
    "mountains": ["in the mountains", "in front of mountains", "with mountains behind"],
    "sea": ["by the sea", "on the sea", "in the ocean", "at sea", "on the water"],
    "sunset": [
        "at sunset",
        "by the sea at sunset",
        "in the evening",
        "in front of a sunset",
        "at dusk",
        "at sunrise",
    ],
    "forest": ["in a forest", "in the forest", "in the woods", "among trees"],
    "starry sky": [
        "at night",
        "in space",
        "under the stars",
        "in the night sky",
        "under a starry sky",
    ],
    "desert": ["in the desert", "in a desert", "on sand dunes"],
    "beach": ["on the beach", "at the beach", "on a beach", "on the sand"],
    "meadow": ["in a meadow", "on the grass", "in a field", "in a garden", "on a green hill"],
    "snow": ["in the snow", "in winter", "on a snowy day"],
    "moonlight": [
        "under a full moon",
        "in the moonlight",
        "under the moon",
        "on a moonlit night",
        "with a full moon",
    ],
    "table": ["on a table", "on the table", "on a wooden table", "lying on a table"],
}
THING_STYLES = {
    "3d": [
        *["{}"] * 10,
        "a picture of {}",
        "a photo of {}",
        "a photo of {}",
        "an image of {}",
        "a painting of {}",
        "{}, digital art",
        "{}, highly detailed",
        "{}, 3d",
        "3d render of {}",
        "{}, 3d render",
        "a 3d picture of {}",
        "{} emoji",
        "draw {}",
        "please draw {}",
    ],
    "flat": [
        "{}, flat",
        "{}, flat design",
        "flat drawing of {}",
        "{}, icon",
        "flat icon of {}",
        "{}, vector art",
        "a cartoon of {}",
        "{}, cartoon",
        "a drawing of {}",
        "clip art of {}",
    ],
}
LOOKS = ["cute", "beautiful", "nice", "cool", "funny", "happy", "realistic", "single", "lovely"]
SCENE_STYLES = [
    "{}",
    "{}",
    "view of {}",
    "View of a {}",
    "a view of {}",
    "a photo of {}",
    "a picture of {}",
    "a painting of {}",
    "an illustration of {}",
    "{}, digital art",
    "{}, highly detailed",
    "landscape with {}",
    "beautiful {}",
    "{} scene",
    "A {}",
]
SHAPE_STYLES = [
    "{}",
    "{}",
    "a picture of {}",
    "a drawing of {}",
    "a photo of {}",
    "an image of {}",
    "a painting of {}",
    "{}, flat design",
    "{}, minimal",
    "{}, icon",
]
BIG = {"small": ["small", "tiny", "little"], "large": ["large", "big", "huge"], "": [""]}
AT = {
    "": ["", "", "in the middle", "in the center"],
    "left": ["on the left", "at the left", "on the left side"],
    "right": ["on the right", "at the right", "on the right side"],
    "top": ["at the top", "on top", "in the upper half"],
    "bottom": ["at the bottom", "in the lower half", "at the lower edge"],
}


def caption(subject: Subject, rng: random.Random, words: dict[str, list[str]] | None = None) -> str:
    """One of many ways to say what the picture shows.

    `words` are further names of things, as `concepts.keywords` finds them.
    """
    if subject.thing:
        return _thing_caption(subject, rng, words or {})
    if subject.scene:
        text = rng.choice(SCENE_STYLES).format(rng.choice(SCENE_WORDS[subject.scene]))
        return text.replace("a a ", "a ").replace("a the ", "the ").replace("A a ", "A ")
    return _shape_caption(subject, rng)


def _thing_caption(subject: Subject, rng: random.Random, words: dict[str, list[str]]) -> str:
    what = _noun(subject.thing, rng, words)
    size = rng.choice(BIG[subject.size])
    if subject.other == subject.thing:
        text = rng.choice([f"two {_plural(what)}", f"two {_plural(what)}", f"a pair of {what}"])
    elif subject.other:
        other = _noun(subject.other, rng, words)
        joint = rng.choice(["and", "and", "and", "next to", "with", "beside"])
        text = f"{_article(what, rng)} {joint} {_article(other, rng)}"
    else:
        look = rng.choice(LOOKS) if rng.random() < 0.12 else ""
        text = _article(" ".join(filter(None, [look, size, what])), rng)
    parts = [text, rng.choice(AT[subject.place]) if subject.place else ""]
    if subject.scene:
        parts.append(rng.choice(WHERE[subject.scene]))
    elif subject.background:
        parts.append(_ground(subject.background, rng))
    text = rng.choice(THING_STYLES[subject.style]).format(" ".join(filter(None, parts)))
    return text[0].upper() + text[1:] if rng.random() < 0.25 else text


def _noun(name: str, rng: random.Random, words: dict[str, list[str]]) -> str:
    """The concept's name, one of its synonyms, or a keyword."""
    kind = rng.random()
    synonyms = concepts()[name].synonyms
    if kind < 0.25 and synonyms:
        return rng.choice(synonyms)
    if kind > 0.93 and words.get(name):
        return rng.choice(words[name])
    return name


def _article(words: str, rng: random.Random) -> str:
    plural = words.endswith("s") and not words.endswith("ss")
    if plural or rng.random() < 0.3:
        return words if rng.random() < 0.8 else f"some {words}"
    if rng.random() < 0.12:
        return f"the {words}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _plural(words: str) -> str:
    if words.endswith(("s", "sheep", "fish")):
        return words
    return words + ("es" if words.endswith(("x", "ch", "sh")) else "s")


def _shape_caption(subject: Subject, rng: random.Random) -> str:
    size, at = rng.choice(BIG[subject.size]), rng.choice(AT[subject.place])
    thing = " ".join(filter(None, [size, subject.colour, subject.shape]))
    thing = rng.choice(["{}", "a {}", "a {}", "a {}"]).format(thing)
    back = subject.background
    if not back:
        return rng.choice(SHAPE_STYLES).format(" ".join(filter(None, [thing, at])))
    ground = _ground(back, rng)
    if rng.random() < 0.15:
        text = ", ".join(filter(None, [thing, at, ground]))
    else:
        text = " ".join(
            filter(None, [thing, at, ground] if rng.random() < 0.5 else [thing, ground, at])
        )
    return rng.choice(SHAPE_STYLES).format(text)


def _ground(colour: str, rng: random.Random) -> str:
    return rng.choice(
        [
            "on a {} background",
            "on a {} background",
            "on {}",
            "against a {} background",
            "with a {} background",
            "{} background",
        ]
    ).format(colour)
