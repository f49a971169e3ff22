"""Enlarging between the steps: in turns, cancelled, late, failing, and drained as drawing is."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from runnables.engine.engine import Engine
from runnables.errors import (
    Cancelled,
    DeadlineExceeded,
    GenerationFailed,
    InvalidInput,
    NotReady,
    PayloadTooLarge,
    UnknownName,
)
from runnables.parameters import Hires, TextToImage, Upscale
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs, Load, Progress
from runnables.upscalers.upscaler import Lanczos, Tiles
from tests.insides import model_of
from tests.runnables.engine import reference
from tests.runnables.engine.test_parity import BOUND, TinyModel

Start = Callable[..., StableDiffusionRunnable]
Make = Callable[..., tuple[StableDiffusionRunnable, list[str]]]


class Slow(Lanczos):
    """Lanczos in 40 turns, of which some may fail; tells what it is doing."""

    name = "slow"

    def __init__(self, told: list[str], fails_at: int = -1) -> None:
        self._told, self._fails_at = told, fails_at

    def turns(self, size: tuple[int, int]) -> int:
        return 40

    def enlarge(self, image: Image.Image, size: tuple[int, int]) -> Tiles:
        for turn in range(40):
            if turn == self._fails_at:
                raise RuntimeError("broken")
            time.sleep(0.005)
            self._told.append("turn")
            yield
        return image.resize((size[1], size[0]))


@pytest.fixture
def slow(start: Start, monkeypatch: pytest.MonkeyPatch) -> Make:
    """slow(fails_at) is a runnable whose every upscaler is slow, and what it tells."""

    def make(fails_at: int = -1) -> tuple[StableDiffusionRunnable, list[str]]:
        runnable, told = start("sd1"), []
        upscalers = model_of(runnable).upscalers
        monkeypatch.setattr(upscalers, "get", lambda name, loc: Slow(told, fails_at))
        return runnable, told

    return make


def engine_of(runnable: StableDiffusionRunnable) -> Engine:
    assert runnable._engine is not None
    return runnable._engine


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def drawing(steps: int = 30, **options: object) -> TextToImage:
    given = {"prompt": "a cat", "num_inference_steps": steps, "seed": 1, **options}
    return TextToImage(**given)  # type: ignore[arg-type]


def test_lanczos_is_pillows(start: Start, photo: Image.Image) -> None:
    runnable, wide = start("sd1"), photo.crop((0, 0, 50, 31))
    for scale, size in ((None, (100, 62)), (1.5, (75, 46)), (4, (200, 124))):
        result = runnable.upscale(Upscale(scale=scale), wide)
        drawn = result.images[0]
        assert drawn.image.size == size
        assert (pixels(drawn.image) == pixels(wide.resize(size, Image.Resampling.LANCZOS))).all()
        assert drawn.seed is None
        assert result.parameters == Upscale(scale=scale or 2.0)
        assert list(result.timings) == ["queue", "upscale"]
        assert result.cost_units == size[0] * size[1] / 512**2
    assert runnable.load() == Load()


def test_exactly_as_many_pixels_as_allowed(start: Start, photo: Image.Image) -> None:
    runnable = start("sd1", max_pixels=128 * 128)
    assert runnable.plan(Upscale(scale=2), Inputs(photo)).steps
    with pytest.raises(PayloadTooLarge) as caught:
        runnable.plan(Upscale(scale=2), Inputs(photo.resize((64, 65))))
    assert caught.value.loc == ("scale",)


def test_turns_are_told_as_progress(slow: Make, photo: Image.Image) -> None:
    runnable, _ = slow()
    seen: list[Progress] = []
    ticket = runnable.submit(Upscale(), Inputs(photo), on_step=seen.append)
    ticket.future.result(timeout=300)
    assert [(one.step, one.steps) for one in seen] == [(turn, 40) for turn in range(1, 41)]
    assert ticket.progress == Progress("done", 40, 40)
    assert runnable.plan(Upscale(), Inputs(photo)).steps == 40
    assert runnable.plan(Upscale(), Inputs(photo)).seconds > 0.1


def test_steps_and_turns_alternate(slow: Make, photo: Image.Image) -> None:
    """Neither waits for the other to end.

    A short request ends in the middle of a long enlargement, and a long one does not delay that.
    """
    runnable, told = slow()
    enlarging = runnable.submit(Upscale(), Inputs(photo))
    short = runnable.submit(drawing(4, scheduler="ddim"), on_step=lambda _: told.append("step"))
    long = runnable.submit(drawing(150, num_images_per_prompt=8))
    short.future.result(timeout=300)
    assert not enlarging.future.done()
    enlarging.future.result(timeout=300)
    assert not long.future.done()
    long.cancel()
    assert told.count("step") == 4
    assert "turn" in told[told.index("step") :]


def test_cancelled_and_late(slow: Make, photo: Image.Image) -> None:
    runnable, told = slow()
    ticket = runnable.submit(Upscale(), Inputs(photo), on_step=lambda _: ticket.cancel())
    with pytest.raises(Cancelled):
        ticket.future.result(timeout=300)
    assert len(told) == 1
    with pytest.raises(DeadlineExceeded):
        runnable.upscale(Upscale(deadline_s=0.05), photo)
    assert runnable.load() == Load()


def test_a_failure_ends_alone(slow: Make, photo: Image.Image) -> None:
    runnable, _ = slow(fails_at=3)
    neighbour = runnable.submit(drawing(20))
    second_pass = runnable.submit(drawing(2, hires=Hires(upscaler="slow")))
    with pytest.raises(GenerationFailed):
        runnable.upscale(Upscale(), photo)
    assert neighbour.future.result(timeout=300).images
    assert isinstance(second_pass.future.exception(timeout=300), GenerationFailed)
    assert runnable.load() == Load()


def test_drained_and_closed(slow: Make, photo: Image.Image) -> None:
    runnable, _ = slow()
    accepted = runnable.submit(Upscale(), Inputs(photo))
    assert runnable.drain(30)
    assert accepted.future.result(timeout=300).images
    with pytest.raises(NotReady):
        runnable.submit(Upscale(), Inputs(photo))
    runnable, _ = slow()
    left = [runnable.submit(Upscale(), Inputs(photo)) for _ in range(5)]
    left.append(runnable.submit(drawing(2, hires=Hires(upscaler="slow"))))
    runnable.close()
    assert {type(ticket.future.exception(timeout=300)) for ticket in left} == {NotReady}


@pytest.mark.parametrize(
    ("asked", "error", "field"),
    [
        ({"upscaler": "lanczoz"}, UnknownName, "upscaler"),
        ({"scale": 4, "side": 1025}, PayloadTooLarge, "scale"),
        ({"scale": 4, "side": (1, 8000)}, InvalidInput, "scale"),
    ],
)
def test_what_cannot_be_enlarged_is_refused(
    start: Start, asked: dict[str, object], error: type[InvalidInput], field: str
) -> None:
    side = asked.pop("side", 8)
    image = Image.new("RGB", side if isinstance(side, tuple) else (side, side))  # type: ignore[arg-type]
    with pytest.raises(error) as caught:
        start("sd1").submit(Upscale(**asked), Inputs(image))  # type: ignore[arg-type]
    assert caught.value.loc == (field,)


def test_an_image_is_needed(start: Start) -> None:
    with pytest.raises(InvalidInput) as caught:
        start("sd1").submit(Upscale())
    assert caught.value.loc == ("img",)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_second_pass_from_the_enlarged_picture_equals_diffusers(
    kind: str, start: Start, tiny_model: TinyModel
) -> None:
    runnable = start(kind)
    wanted = [
        drawing(4, hires=Hires(upscaler="lanczos", scale=scale), scheduler=sampler, seed=seed)
        for seed, (scale, sampler) in enumerate([(2.0, "euler_a"), (1.5, "dpmpp_2m")])
    ]
    tickets = [runnable.submit(one) for one in [*wanted, drawing(9)]]
    for ticket in tickets:
        result = ticket.future.result(timeout=300)
        asked = result.parameters
        assert isinstance(asked, TextToImage)
        expected = reference.generate(tiny_model(kind), asked)
        assert np.abs(pixels(result.images[0].image) - expected).max() <= BOUND


def test_second_pass_names_its_upscaler(start: Start) -> None:
    with pytest.raises(UnknownName, match="known: lanczos") as caught:
        start("sd1").submit(drawing(hires=Hires(upscaler="esrgan")))
    assert caught.value.loc == ("hires", "upscaler")
