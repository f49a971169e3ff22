"""The subject of a picture: a coloured shape, a scene, or one or two things on a background."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.98, 0.55, 0.08),
    "yellow": (0.97, 0.88, 0.15),
    "green": (0.12, 0.62, 0.22),
    "blue": (0.12, 0.27, 0.85),
    "purple": (0.55, 0.18, 0.68),
    "black": (0.05, 0.05, 0.06),
    "white": (0.97, 0.97, 0.96),
}
SIZES = {"small": 0.2, "": 0.3, "large": 0.4}
PLACES = {
    "": (0.0, 0.0),
    "left": (-0.22, 0.0),
    "right": (0.22, 0.0),
    "top": (0.0, -0.22),
    "bottom": (0.0, 0.22),
}


@dataclass(frozen=True)
class Subject:
    """The subject of a picture.

    Shapes have the first five fields. A scene alone has only `scene`. A thing has `thing` and
    `style`, with `other` where there are two, and a scene, a background colour, or neither.
    """

    shape: str = ""
    colour: str = ""
    background: str = ""
    size: str = ""
    place: str = ""
    scene: str = ""
    thing: str = ""
    style: str = ""
    other: str = ""
