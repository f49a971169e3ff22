"""The safety checker reports, the operator's policy decides, and no image is silently black."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings

ASK = TextToImage(prompt="x", num_inference_steps=2, seed=1)


def generated(model: Path, policy: str, **changes: object) -> tuple[np.ndarray, str]:
    settings = Settings(model=str(model), threads=1, safety=policy)  # type: ignore[arg-type]
    runnable = StableDiffusionRunnable(settings)
    runnable.start()
    try:
        (image,) = runnable.txt2img(ASK.model_copy(update=changes)).images
        return np.asarray(image.image), image.finish_reason
    finally:
        runnable.close()


def test_policies(strict_model: Path) -> None:
    plain, reason = generated(strict_model, "off")
    assert reason == "success"
    flagged, reason = generated(strict_model, "flag")
    assert reason == "content_filtered"
    assert (flagged == plain).all()
    blurred, reason = generated(strict_model, "blur")
    assert reason == "content_filtered"
    assert blurred.std() < plain.std()
    blocked, reason = generated(strict_model, "block")
    assert reason == "content_filtered"
    assert (blocked == 128).all(), "grey and reported, never black and silent"


def test_a_request_can_decline_only_where_nothing_is_enforced(strict_model: Path) -> None:
    assert generated(strict_model, "flag", safety_check=False)[1] == "success"
    assert generated(strict_model, "block", safety_check=False)[1] == "content_filtered"
