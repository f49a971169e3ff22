"""A row says what its next call and all that is left of it cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from runnables.engine.denoise import Denoise, plan
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.prepare import Preparer
from runnables.engine.row import Row
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs, Ticket
from tests.insides import model_of

Start = Callable[..., StableDiffusionRunnable]


def planned(model: LoadedModel, **options: object) -> Denoise:
    options = {"prompt": "a cat", "seed": 1, "num_inference_steps": 10, **options}
    return plan(model, Ticket(TextToImage(**options)), Inputs())  # type: ignore[arg-type]


def row_of(model: LoadedModel, **options: object) -> Row:
    with torch.inference_mode():
        (row,) = Preparer(0).at_once(planned(model, **options))
    return row


def test_guided_rows_cost_two(start: Start) -> None:
    model = model_of(start("sd1"))
    guided, plain = (row_of(model, guidance_scale=scale, scheduler="ddim") for scale in (1.5, 1.0))
    area = guided.key.area
    assert (guided.denoiser_rows, guided.load, guided.remaining) == (2, 2.0, 20.0 * area)
    assert (plain.denoiser_rows, plain.load, plain.remaining) == (1, 1.0, 10.0 * area)
    plain.advance()
    assert plain.remaining == 9.0 * area


def test_a_unit_of_cost_is_a_row_of_512_by_512_pixels(start: Start) -> None:
    work = planned(
        model_of(start("sd1")), height=512, width=256, scheduler="ddim", guidance_scale=5.0
    )
    assert work.cost_units == 2 * 10 / 2


def test_the_prompts_of_several_requests_are_encoded_in_one_call(start: Start) -> None:
    model = model_of(start("sd1"))
    base: Any = model.base
    encoder, rows = base.encoders[0].model, list[int]()
    handle = encoder.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    preparer = Preparer(10)
    works = [planned(model, prompt=f"number {number}", guidance_scale=5.0) for number in range(3)]
    with torch.inference_mode():
        preparer.encode(works)
        assert rows == [4], "three prompts and the empty one"
        for work in works:
            preparer.at_once(work)
    assert rows == [4], "they are kept"
    handle.remove()
