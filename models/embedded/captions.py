"""How people ask for what the model knows."""

from __future__ import annotations

import random

from models.embedded.subject import Subject

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
}
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


def caption(subject: Subject, rng: random.Random) -> str:
    """One of many ways to say what the picture shows."""
    if subject.scene:
        text = rng.choice(SCENE_STYLES).format(rng.choice(SCENE_WORDS[subject.scene]))
        return text.replace("a a ", "a ").replace("a the ", "the ").replace("A a ", "A ")
    size, at = rng.choice(BIG[subject.size]), rng.choice(AT[subject.place])
    thing = " ".join(filter(None, [size, subject.colour, subject.shape]))
    thing = rng.choice(["{}", "a {}", "a {}", "a {}"]).format(thing)
    back = subject.background
    if not back:
        return rng.choice(SHAPE_STYLES).format(" ".join(filter(None, [thing, at])))
    ground = rng.choice(
        [
            "on a {} background",
            "on a {} background",
            "on {}",
            "against a {} background",
            "with a {} background",
            "{} background",
        ]
    ).format(back)
    if rng.random() < 0.15:
        text = ", ".join(filter(None, [thing, at, ground]))
    else:
        text = " ".join(
            filter(None, [thing, at, ground] if rng.random() < 0.5 else [thing, ground, at])
        )
    return rng.choice(SHAPE_STYLES).format(text)
