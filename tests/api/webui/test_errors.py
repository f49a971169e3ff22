"""Errors name fields as the WebUI's clients write them."""

from __future__ import annotations

import pytest

from api.webui import errors
from runnables.errors import InvalidInput, NotReady, StableDiffusionError

STRENGTH = "strength 0.1 leaves none; raise strength or num_inference_steps"
THEIRS = "denoising_strength 0.1 leaves none; raise denoising_strength or steps"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidInput(STRENGTH, loc=("strength",)), THEIRS),
        (InvalidInput("no LoRA x", loc=("loras",)), "prompt: no LoRA x"),
        (InvalidInput("not available", loc=("tiling",)), "tiling: not available"),
        (InvalidInput("tiling: no", loc=("tiling",)), "tiling: no"),
        (InvalidInput("not this"), "not this"),
        (NotReady("loading", loc=("model",)), "loading"),
    ],
)
def test_messages(error: StableDiffusionError, text: str) -> None:
    assert errors.message(error) == text
    assert errors.body(error)["detail"] == errors.body(error)["errors"] == text
