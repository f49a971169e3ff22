"""DeepCache saves UNet calls, and what it reuses is exact where nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

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
    wanted(3, guidance_interval=(0.4, 1.0)),
    wanted(2, seed=4),
]


def pixels(ticket: Ticket) -> np.ndarray:
    return np.asarray(ticket.future.result(timeout=300).images[0].image).astype(int)


class Calls:
    """What a UNet's last up block gets: in whole calls, and what shallow ones reuse."""

    def __init__(self, unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole: list[torch.Tensor] = []
        self.reused: list[torch.Tensor] = []
        self._shallow = False
        monkeypatch.setattr(deep_cache, "predict_shallow", self._predict)
        unet.up_blocks[-1].register_forward_pre_hook(self._look, with_kwargs=True)

    def _predict(self, *arguments: Any) -> Any:
        self._shallow = True
        try:
            return predict_shallow(*arguments)
        finally:
            self._shallow = False

    def _look(self, _block: Any, _given: Any, named: dict[str, Any]) -> None:
        (self.reused if self._shallow else self.whole).append(named["hidden_states"])

    @property
    def rows(self) -> int:
        """Return the denoiser rows that were saved."""
        return sum(map(len, self.reused))


def test_each_half_of_a_guided_row_reuses_its_own_features(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = start("sd1")
    calls = Calls(base_of(runnable).unet, monkeypatch)
    pixels(runnable.submit(wanted(9, negative_prompt="a dog")))
    (whole,) = calls.whole
    assert (whole[0] - whole[1]).abs().max() > 0
    assert len(calls.reused) == 8
    assert all(torch.equal(features, whole) for features in calls.reused)


def test_guided_and_unguided_rows_share_calls_and_each_is_as_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = start("sd1")
    calls = Calls(base_of(runnable).unet, monkeypatch)
    alone, rows = [], []
    for one in MIXED:
        calls.reused.clear()
        alone.append(pixels(runnable.submit(one)))
        rows.append(calls.rows)
    # of 9 steps, interval 3 skips 6 and interval 2 skips 4; but a guided row needs features of both
    # its halves: in the fifth request, the step at which guidance begins is a whole call, too
    assert rows == [0, 2 * 6, 2 * 2 + 2, 6, 2 + 2 * 3, 2 * 4]
    calls.reused.clear()
    tickets = [runnable.submit(one) for one in MIXED]
    for one, ticket, expected in zip(MIXED, tickets, alone, strict=True):
        assert np.abs(pixels(ticket) - expected).max() <= 2, one
    assert calls.rows == sum(rows)
    assert max(map(len, calls.reused)) > 2, "calls are shared"
    plain = pixels(runnable.submit(MIXED[1].model_copy(update={"deep_cache_interval": 1})))
    assert np.abs(alone[1] - plain).max() > 0, "what is reused is not exact"


def test_features_are_kept_of_compiled_code_and_only_then() -> None:
    """Compiled code knows no hooks, or keeps those that it was compiled with."""

    class Block(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return hidden_states + 1

    class Unet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up_blocks = torch.nn.ModuleList([Block()])

        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.up_blocks[0](hidden_states=sample)
            return output

    for begins_with_features in (False, True):
        unet, sample = Unet(), torch.ones(1)
        unet.compile(backend="eager")
        if not begins_with_features:
            unet(sample)
        with kept_features(cast(Any, SimpleNamespace(unet=unet))) as kept:
            unet(sample)
        assert len(kept) == 1
        unet(sample)
        assert len(kept) == 1
