"""The model's own safety checker: a stage after decoding that changes only flagged images.

diffusers' checker blackens what it flags; here it only tells, and the operator's policy decides:
`flag` leaves the image, `blur` makes it unrecognisable, `block` replaces it by plain grey. Whatever
is done, the image's finish reason says `content_filtered`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

    from runnables.families.base import Pipeline

Policy = Literal["off", "flag", "blur", "block"]


def applies(pipeline: Pipeline, policy: Policy, asked: bool) -> bool:
    """Whether images are checked: a request may decline only where the policy merely flags."""
    if pipeline.checkpoint.safety_checker is None or policy == "off":
        return False
    return asked or policy != "flag"


def flagged(pipeline: Pipeline, images: Sequence[Image]) -> list[bool]:
    """Which of these RGB images the model's safety checker objects to."""
    checkpoint = pipeline.checkpoint
    inputs = checkpoint.feature_extractor(list(images), return_tensors="pt").pixel_values
    # What the checker would blacken is a stand-in: the images themselves stay as they are.
    stand_in = [np.zeros((1, 1, 3)) for _ in images]
    _, flags = checkpoint.safety_checker(
        images=stand_in, clip_input=inputs.to(pipeline.device, pipeline.dtype)
    )
    return [bool(flag) for flag in flags]


def filtered(image: Image, policy: Policy) -> Image:
    """A flagged image as the policy shows it."""
    from PIL import Image as images

    if policy == "blur":
        small = image.resize((max(1, image.width // 32), max(1, image.height // 32)))
        return small.resize(image.size)
    return images.new("RGB", image.size, (128, 128, 128)) if policy == "block" else image
