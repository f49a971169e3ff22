"""What is done beside the steps holds none of them up for long, and changes no image."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from runnables.engine.beside import AT_ONCE
from runnables.engine.denoise import Denoise
from runnables.engine.scheduling import AHEAD
from runnables.engine.work import Work
from runnables.errors import Cancelled
from runnables.extensions.controlnet.unet import UNetControlNet
from runnables.extensions.previews import LinearMap
from runnables.families.base import Size
from runnables.families.unet import UNetFamily
from runnables.parameters import ControlNetUse, Hires, ImageToImage, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import NOTHING, Caller, Inputs, Load, Progress, Ticket
from tests.insides import engine_of
from tests.runnables.engine.virtual import IMAGE_S, LIMIT, Device, VirtualEngine

Start = Callable[..., StableDiffusionRunnable]
Tiny = Callable[[str], Path]
FLOODER, SMALL = Caller("flooder"), Caller("small")


def wanted(steps: int = 4, **options: Any) -> TextToImage:
    return TextToImage(prompt="a cat", num_inference_steps=steps, **{"seed": 1, **options})


# -- in turns with the steps, on a virtual clock ------------------------------------------------


def longest_pause(engine: VirtualEngine, other: TextToImage, inputs: Inputs) -> float:
    """Return the longest time between two steps of a request, beside another one."""
    ticket = engine.submit(wanted(60))
    engine.after(0.2, lambda: engine.submit(other, inputs))
    engine.run(ticket.future.done)
    return max(later[0] - before[1] for before, later in pairwise(engine.steps))


def test_no_step_waits_for_more_than_one_decode(tiny_model: Tiny) -> None:
    """Eight images end with the same step: decoded together they take as long as seven steps."""
    engine = VirtualEngine(tiny_model("sd1"))
    pause = longest_pause(engine, wanted(4, num_images_per_prompt=8), NOTHING)
    assert pause == pytest.approx(IMAGE_S)


def test_no_step_waits_for_more_than_one_encoded_picture(
    tiny_model: Tiny, photo: Image.Image
) -> None:
    engine = VirtualEngine(tiny_model("sd1"))
    other = ImageToImage(prompt="a cat", seed=1, num_inference_steps=4, num_images_per_prompt=8)
    assert longest_pause(engine, other, Inputs(photo)) == pytest.approx(IMAGE_S)


def test_no_step_waits_for_more_than_one_picture_of_a_controlnet(
    tiny_model: Tiny,
    controlnets: Callable[[str], Path],
    photo: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a transformer's family a ControlNet's picture is encoded by the VAE, too."""
    engine = VirtualEngine(tiny_model("sd1"), controlnet_dir=str(controlnets("sd1")))
    prepare = UNetControlNet.prepare

    def prepared(self: UNetControlNet, picture: Image.Image, size: Size) -> Tensor:
        engine.clock.now += IMAGE_S
        return prepare(self, picture, size)

    monkeypatch.setattr(UNetControlNet, "prepare", prepared)
    uses = tuple(ControlNetUse(name=name) for name in ("one", "two", "one"))
    other, inputs = wanted(4, controlnets=uses), Inputs(controls=(photo,) * 3)
    engine.after(0.2, lambda: engine.submit(other, inputs))  # beside the one that comes then, too
    assert longest_pause(engine, other, inputs) == pytest.approx(IMAGE_S)


def test_no_step_waits_for_more_than_one_reviewed_picture(
    tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first review may follow a decode, without a step between them."""
    engine = VirtualEngine(tiny_model("sd1"))

    def review(self: object, parameters: object, pictures: list[object]) -> list[bool]:
        engine.clock.now += 0.05 * len(pictures)
        return [False for _ in pictures]

    kind = type(engine.model.extensions[0])
    monkeypatch.setattr(kind, "reviews", lambda self, parameters: True)
    monkeypatch.setattr(kind, "review", review)
    pause = longest_pause(engine, wanted(4, num_images_per_prompt=8), NOTHING)
    assert pause == pytest.approx(IMAGE_S + 0.05)


def test_images_are_decoded_together_where_no_step_waits(
    tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, calls = VirtualEngine(tiny_model("sd1")), list[int]()
    family: Any = engine.model.base
    decode = family.to_pixels

    def to_pixels(latents: Tensor, **options: Any) -> Tensor:
        calls.append(len(latents))
        return decode(latents, **options)

    monkeypatch.setattr(family, "to_pixels", to_pixels)
    ticket = engine.submit(wanted(4, num_images_per_prompt=8))
    engine.run(ticket.future.done)
    assert calls == [8]


def test_looking_for_requests_that_have_ended_takes_a_fiftieth_of_the_time(
    tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds may wait: a look at all of them may take as long as a step."""
    engine, looks = VirtualEngine(tiny_model("sd1")), list[float]()
    queue = engine.engine._queue
    discard = queue.discard

    def discarded(ended: Callable[[Work], bool]) -> list[Work]:
        looks.append(engine.clock())
        engine.clock.now += 0.02
        return discard(ended)

    monkeypatch.setattr(queue, "discard", discarded)
    engine.run(engine.submit(wanted(150)).future.done)
    step_s = max(end - begun for begun, end in engine.steps)
    pauses = [later - before for before, later in pairwise(looks)]
    assert len(pauses) >= 2
    assert all(50 * 0.02 <= pause <= 51 * 0.02 + 2 * step_s for pause in pauses)


# -- by a thread of its own, on a virtual clock ---------------------------------------------------


class Later(Executor):
    """Its calls wait until a test runs them."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls.append(partial(call, *args, **kwargs))
        return Future()


class Decoding:
    """A virtual engine whose other thread decodes image by image, when it is told to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Device, "decodes_beside", lambda device, family: True)
        monkeypatch.setattr(Device, "decode_limit", lambda device, area: 1)
        self.virtual, self.later = VirtualEngine(folder), Later()
        self.engine = self.virtual.engine
        monkeypatch.setattr(self.engine._queue, "wait", lambda timeout: None)
        self.engine._beside._thread = self.later  # type: ignore[assignment]
        self.ended: list[str] = []

    @property
    def aside(self) -> int:
        return len(self.engine._active.aside)

    def submit(self, caller: Caller, **options: Any) -> Ticket:
        ticket = self.virtual.submit(wanted(1, **options), caller=caller)
        ticket.future.add_done_callback(lambda _: self.ended.append(ticket.id))
        return ticket

    def turns(self, count: int = 20) -> None:
        with torch.inference_mode():
            for _ in range(count):
                self.engine._loop.turn()

    def decode(self) -> None:
        """Have all images decoded."""
        while self.later.calls:
            self.later.calls.pop(0)()
            self.turns(1)


@pytest.fixture
def decoding(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> Decoding:
    return Decoding(tiny_model("sd1"), monkeypatch)


@pytest.mark.parametrize("urgent", [{"priority": "high"}, {}])
def test_who_goes_first_is_decoded_next(decoding: Decoding, urgent: dict[str, Any]) -> None:
    """One caller's backlog does not hold up a more urgent image, or another caller's."""
    for seed in range(8):
        decoding.submit(FLOODER, seed=seed)
    decoding.turns()
    ticket = decoding.submit(FLOODER if urgent else SMALL, seed=9, **urgent)
    decoding.turns()
    assert decoding.aside == 9
    decoding.decode()
    assert decoding.ended.index(ticket.id) == AT_ONCE, "behind the calls that the thread had"


def test_images_that_wait_to_be_decoded_take_room(decoding: Decoding) -> None:
    for seed in range(80):
        decoding.submit(FLOODER, seed=seed)
    decoding.turns(100)
    assert 0 < decoding.aside <= AHEAD * LIMIT
    decoding.submit(SMALL)
    before = decoding.aside
    decoding.turns()
    assert decoding.aside == before + 1, "there is room for another caller"
    decoding.decode()
    assert len(decoding.ended) == 81


def test_decoding_beside_the_steps_is_paid_for(decoding: Decoding) -> None:
    decoding.submit(FLOODER)
    decoding.turns()
    before = decoding.engine.served(FLOODER)
    decoding.decode()
    assert decoding.engine.served(FLOODER) > before


def test_cancelled_images_are_not_decoded(decoding: Decoding) -> None:
    calls, family = list[int](), cast(Any, decoding.virtual.model.base)
    family.to_pixels = lambda latents: calls.append(len(latents)) or latents.new_zeros(1, 3, 8, 8)
    tickets = [decoding.submit(FLOODER, seed=seed) for seed in range(9)]
    decoding.turns()
    for ticket in tickets:
        ticket.cancel()
    decoding.turns(1)
    decoding.decode()
    assert sum(calls) <= AT_ONCE


# -- by a thread of its own ---------------------------------------------------------------------


@pytest.fixture
def beside(start: Start, monkeypatch: pytest.MonkeyPatch) -> StableDiffusionRunnable:
    """Return a runnable that decodes on another thread, as a GPU does; here without a stream."""
    runnable = start("sd1", max_queue_s=3600)
    accelerator = engine_of(runnable)._accelerator
    monkeypatch.setattr(accelerator, "decodes_beside", lambda family: True)
    return runnable


def images(ticket: Ticket) -> list[np.ndarray]:
    return [np.asarray(one.image).astype(int) for one in ticket.future.result(300).images]


@pytest.mark.parametrize("fails", [False, True])
def test_images_decoded_beside_the_steps_are_the_same(
    beside: StableDiffusionRunnable,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    """What fails there is decoded on the engine's thread."""
    asked = [
        wanted(5, num_images_per_prompt=3),
        wanted(9, seed=5, hires=Hires(upscaler="lanczos", scale=1.5)),
        wanted(4, seed=6, hires=Hires()),
        wanted(7, seed=8, height=96),
    ]
    expected = [images(start("sd1").submit(one)) for one in asked]
    threads, decode = set[str](), UNetFamily.to_pixels

    def to_pixels(family: UNetFamily, latents: Tensor, **options: Any) -> Tensor:
        threads.add(name := threading.current_thread().name.partition("_")[0])
        if fails and name == "decode":
            raise RuntimeError("broken beside the steps")
        return decode(family, latents, **options)

    monkeypatch.setattr(UNetFamily, "to_pixels", to_pixels)
    tickets = [beside.submit(one) for one in asked]
    for ticket, pictures in zip(tickets, expected, strict=True):
        for generated, picture in zip(images(ticket), pictures, strict=True):
            assert np.abs(generated - picture).max() <= 2
    assert threads == ({"decode", "engine"} if fails else {"decode"})
    assert beside.load() == Load()


def test_a_request_that_ends_while_it_is_decoded_beside_the_steps(
    beside: StableDiffusionRunnable, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, decode = threading.Event(), threading.Event(), UNetFamily.to_pixels

    def to_pixels(family: UNetFamily, latents: Tensor, **options: Any) -> Tensor:
        begun.set()
        go.wait(300)
        return decode(family, latents, **options)

    monkeypatch.setattr(UNetFamily, "to_pixels", to_pixels)
    ticket = beside.submit(wanted())
    assert begun.wait(300)
    assert beside.load().active == 1
    ticket.cancel()
    assert isinstance(ticket.future.exception(60), Cancelled)
    go.set()
    assert beside.txt2img(wanted()).images
    assert engine_of(beside)._active.aside == []


def test_previews_are_made_beside_the_steps(
    beside: StableDiffusionRunnable, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They show the step that was requested, and come with a later one."""
    go, made, threads = threading.Event(), LinearMap.__call__, set[str]()

    def wait(self: LinearMap, latents: Tensor) -> Tensor:
        threads.add(threading.current_thread().name.partition("_")[0])
        go.wait(300)
        return made(self, latents)

    def seen(runnable: StableDiffusionRunnable) -> list[Progress]:
        every = list[Progress]()

        def on_step(progress: Progress) -> None:
            every.append(progress)
            if progress.step == 5:
                go.set()
                preview = runnable._engine._active.works[0].preview  # type: ignore[union-attr]
                if preview is not None:
                    preview[0].result(300)

        ticket = runnable.submit(wanted(12, scheduler="euler"), on_step=on_step, preview_every=2)
        ticket.future.result(300)
        return [one for one in every if one.preview]

    expected = {one.previewed: one for one in seen(start("sd1"))}
    assert [*expected] == [one.step for one in expected.values()] == [2, 4, 6, 8, 10]
    go.clear()
    monkeypatch.setattr(LinearMap, "__call__", wait)
    first, *others = seen(beside)
    assert threads == {"decode"}
    assert (first.step, first.previewed) == (6, 2)
    for one in (first, *others):
        assert (np.asarray(one.preview) == np.asarray(expected[one.previewed].preview)).all()


def test_previews_that_are_fast_skip_no_two_steps(beside: StableDiffusionRunnable) -> None:
    every = list[Progress]()

    def on_step(progress: Progress) -> None:
        every.append(progress)
        for work in engine_of(beside)._active.works:
            if isinstance(work, Denoise) and work.preview is not None:
                work.preview[0].result(300)

    beside.submit(wanted(12), on_step=on_step, preview_every=1).future.result(300)
    shown = {one.step: one.step - one.previewed for one in every if one.preview}
    # the newest is shown, so a step's own may take the place of the one before, which is not then
    assert all({step, step + 1} & shown.keys() for step in range(1, 12))
    assert set(shown.values()) <= {0, 1}, "a step's own, or that of the step before"
