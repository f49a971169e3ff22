"""What the UNet sees in its training, and how a run whose checkpoints are gone goes on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from models.training import draw, train, unet
from models.training.run import Run


@pytest.mark.parametrize(("step", "share"), [(0, 0.05), (unet.FLAT_FIRST, 0.5)])
def test_flat_drawings_are_half_of_the_things_in_the_end(step: int, share: float) -> None:
    rng = random.Random(0)
    subjects = [draw.subject(rng, 0.5, 0.66) for _ in range(4000)]
    weights = unet._weights(subjects, *unet._chosen_at(step))
    things = sum(w for w, one in zip(weights, subjects, strict=True) if one.thing)
    flat = sum(w for w, one in zip(weights, subjects, strict=True) if one.style == "flat")
    assert things == pytest.approx(unet.SHARES["thing"])
    assert flat / things == pytest.approx(share, abs=0.03)


def test_a_run_goes_on_from_the_models_own_weights(tmp_path: Path) -> None:
    unet.begin_again(train.EMBEDDED, tmp_path, 123)
    empty = unet.build_unet()
    run = Run("unet", empty, tmp_path, 200, 1e-3, 0.998)
    assert run.step == 123
    run.load_ema()
    sample, states = torch.randn(1, unet.LATENTS, 16, 16), torch.randn(1, 77, unet.TEXT_WIDTH)
    from diffusers import UNet2DConditionModel

    stored = UNet2DConditionModel.from_pretrained(train.EMBEDDED / "unet", dtype=torch.float32)
    with torch.inference_mode():
        assert torch.equal(empty(sample, 5, states).sample, stored(sample, 5, states).sample)
