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
from runnables.ticket import Ticket
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


def wanted(interval: int, **options: Any) -> TextToImage:
    arguments = {"prompt": "a cat", "seed": 3, "num_inference_steps": 9, "scheduler": "ddim"}
    return TextToImage(**arguments | options, deep_cache_interval=interval)  # type: ignore[arg-type]


MIXED = [
    wanted(1),
    wanted(3),
    wanted(2, guidance_interval=(0.0, 0.5)),
    wanted(3, guidance_scale=1),
    wanted(4, guidance_interval=(0.4, 1.0)),
    wanted(2, seed=4),
]


def pixels(ticket: Ticket) -> np.ndarray:
    return np.asarray(ticket.future.result(timeout=60).images[0].image).astype(int)


def test_guided_and_unguided_rows_share_calls_and_each_is_as_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = start("sd1")
    calls: list[int] = []

    def counted(*arguments: Any) -> Any:
        calls.append(len(arguments[1]))
        return predict_shallow(*arguments)

    monkeypatch.setattr(deep_cache, "predict_shallow", counted)
    alone, rows = [], []
    for one in MIXED:
        calls.clear()
        alone.append(pixels(runnable.submit(one)))
        rows.append(sum(calls))
    # of 9 steps, interval 3 skips 6, interval 2 skips 4, and interval 4 skips 6; but a guided row
    # needs features of both its halves: in the fifth request the step at which guidance begins,
    # number 4, is a whole call by its interval, too
    assert rows == [0, 2 * 6, 2 * 2 + 2, 6, 3 + 2 * 3, 2 * 4]
    calls.clear()
    tickets = [runnable.submit(one) for one in MIXED]
    for one, ticket, expected in zip(MIXED, tickets, alone, strict=True):
        assert np.abs(pixels(ticket) - expected).max() <= 2, one
    assert sum(calls) == sum(rows)
    assert max(calls) > 2, "calls are shared"
    plain = pixels(runnable.submit(MIXED[1].model_copy(update={"deep_cache_interval": 1})))
    assert np.abs(alone[1] - plain).max() > 0, "what is reused is not exact"
