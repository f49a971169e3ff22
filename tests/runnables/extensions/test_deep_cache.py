"""DeepCache saves UNet calls, and what it reuses is exact where nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from runnables.extensions import deep_cache
from runnables.extensions.deep_cache import kept_features, predict_shallow
from runnables.families.base import Conditioning
from runnables.families.text.prompts import Text
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.insides import base_of

Start = Callable[..., StableDiffusionRunnable]


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "lcm"])
@torch.inference_mode()
def test_a_shallow_call_on_the_same_input_equals_the_whole(kind: str, start: Start) -> None:
    family = base_of(start(kind))
    text = family.encode([Text("a cat"), Text("a dog")])
    rows = Conditioning.stack(
        [family.condition(one, (64, 64), 5.0, negative=False) for one in text]
    )
    sample, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 700.0])
    with kept_features(family) as kept:
        whole = family.denoise(sample, timesteps, rows)
    shallow = predict_shallow(family, sample, timesteps, rows, kept[0])
    assert torch.allclose(shallow, whole, atol=1e-6)
    moved = predict_shallow(family, sample + 1, timesteps, rows, kept[0])
    assert not torch.allclose(moved, whole, atol=1e-3)


def test_mixed_intervals_share_steps_and_change_only_who_requested(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = start("sd1")
    calls: list[int] = []

    def counted(*arguments: Any) -> Any:
        calls.append(len(arguments[1]))
        return predict_shallow(*arguments)

    monkeypatch.setattr(deep_cache, "predict_shallow", counted)

    def generated(interval: int, **options: Any) -> TextToImage:
        return TextToImage(
            prompt="a cat",
            seed=3,
            num_inference_steps=9,
            scheduler="ddim",
            deep_cache_interval=interval,
            **options,
        )

    alone = np.asarray(runnable.txt2img(generated(1)).images[0].image).astype(int)
    assert not calls
    requested = [
        generated(1),
        generated(3),
        generated(2, guidance_interval=(0.0, 0.5)),
        generated(3, guidance_scale=1),
    ]
    tickets = [runnable.submit(one) for one in requested]
    images = [ticket.future.result(timeout=60).images[0].image for ticket in tickets]
    assert np.abs(np.asarray(images[0]).astype(int) - alone).max() <= 2
    assert np.abs(np.asarray(images[1]).astype(int) - alone).max() > 0
    # of 9 steps: interval 3 skips 6, guided; interval 2 skips 4, of which 2 guided; then 6 unguided
    assert sum(calls) == 2 * 6 + (2 * 2 + 2) + 6


def test_alone_and_in_company_alike(start: Start) -> None:
    runnable = start("sd1")
    requested = [
        TextToImage(prompt="x", seed=i, num_inference_steps=8, deep_cache_interval=2 + i % 2)
        for i in range(4)
    ]
    alone = [np.asarray(runnable.txt2img(one).images[0].image).astype(int) for one in requested]
    tickets = [runnable.submit(one) for one in requested]
    for expected, ticket in zip(alone, tickets, strict=True):
        generated = np.asarray(ticket.future.result(timeout=60).images[0].image).astype(int)
        assert np.abs(generated - expected).max() <= 2
