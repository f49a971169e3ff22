"""The model's own safety checker runs after decoding, and changes only flagged images.

diffusers' checker blackens what it flags; here it only reports, and the operator's policy decides:
`flag` leaves the image, `blur` makes it unrecognisable, `block` replaces it by plain grey. Whatever
is done, the image's finish reason says `content_filtered`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from runnables.extensions.base import Context, Extension
from runnables.families.base import Family
from runnables.parameters import Parameters

if TYPE_CHECKING:
    from PIL.Image import Image

Policy = Literal["off", "flag", "blur", "block"]


class SafetyCheck(Extension):
    """This extension runs the checker of the model's folder, under the operator's policy."""

    name = "safety_check"
    mixes = True

    def __init__(self, family: Family, context: Context) -> None:
        super().__init__(family, context)
        self._policy: Policy = context.settings.safety

    @classmethod
    def suits(cls, family: Family) -> bool:
        return "safety_checker" in family.checkpoint.components

    def wanted(self, parameters: Parameters) -> bool:
        """Return False: the check is no part of a row. `reviews` decides by the policy."""
        return False

    def reviews(self, parameters: Parameters) -> bool:
        """Return whether images are checked; a request may decline where the policy only flags."""
        declined = self._policy == "flag" and not parameters.safety_check
        return self._policy != "off" and not declined

    def review(self, parameters: Parameters, pictures: Sequence[Image]) -> list[bool]:
        parts = self.family.checkpoint.components
        inputs = parts["feature_extractor"](list(pictures), return_tensors="pt").pixel_values
        # The checker blackens what it flags, so it gets copies that nobody sees.
        copies = [np.zeros((1, 1, 3)) for _ in pictures]
        _, flags = parts["safety_checker"](
            images=copies, clip_input=inputs.to(self.family.device, self.family.dtype)
        )
        return [bool(flag) for flag in flags]


def filtered(image: Image, policy: Policy) -> Image:
    """Return a flagged image as the policy shows it."""
    from PIL import Image as images

    if policy == "blur":
        small = image.resize((max(1, image.width // 32), max(1, image.height // 32)))
        return small.resize(image.size)
    return images.new("RGB", image.size, (128, 128, 128)) if policy == "block" else image
