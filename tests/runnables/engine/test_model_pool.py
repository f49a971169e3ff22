"""Several models are loaded when requested, generate apart, and are evicted within the budget."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runnables.engine import loop
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.model_pool import MOST_WAITING, ModelPool
from runnables.errors import (
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    NotReady,
    OverCapacity,
    UnknownName,
)
from runnables.extensions.lora.extension import Loras
from runnables.parameters import LoraUse, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Load, Ticket
from tests.runnables.extensions import test_lora

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
KINDS = ("sd2", "sdxl", "lcm")


def wanted(model: str | None, steps: int = 4, **options: object) -> TextToImage:
    arguments = {"prompt": "a cat", "model": model, "num_inference_steps": steps, "seed": 1}
    return TextToImage(**{**arguments, **options})  # type: ignore[arg-type]


def pixels(ticket: Ticket) -> np.ndarray:
    return np.asarray(ticket.future.result(timeout=300).images[0].image).astype(int)


def loaded(runnable: StableDiffusionRunnable) -> list[str]:
    return [str(model["name"]) for model in runnable.models() if model["loaded"]]


@pytest.fixture
def several(
    tiny_model: TinyModel, start: Start
) -> Iterator[Callable[..., StableDiffusionRunnable]]:
    """Return several(**settings), a runnable with sd1, and sd2, sdxl and lcm beside it."""
    made: list[StableDiffusionRunnable] = []

    def make(**settings: object) -> StableDiffusionRunnable:
        models = ",".join(f"{kind}={tiny_model(kind)}" for kind in KINDS)
        made.append(start("sd1", **{"models": models, **settings}))
        return made[-1]

    yield make
    for runnable in made:
        runnable.close()


@pytest.fixture(scope="module")
def roomy(tiny_model: TinyModel, start: Start) -> StableDiffusionRunnable:
    """Return a runnable that has loaded all of them."""
    models = ",".join(f"{kind}={tiny_model(kind)}" for kind in KINDS)
    runnable = start("sd1", models=models)
    wait([runnable.submit(wanted(kind, steps=1)).future for kind in KINDS], 120)
    return runnable


@pytest.fixture(scope="module")
def budget(roomy: StableDiffusionRunnable) -> float:
    """Return the GB of the default and of the largest further model."""
    assert roomy._pool is not None
    models = roomy._pool.loaded
    others = [one.nbytes for name, one in models.items() if name != "sd1"]
    return (models["sd1"].nbytes + max(others)) / 1e9 * 1.001


def test_each_model_generates_its_own_requests_in_whatever_mix(
    several: Callable[..., StableDiffusionRunnable], start: Start
) -> None:
    runnable = several()
    assert loaded(runnable) == ["sd1"]
    names = [None, *KINDS] * 3
    tickets = [runnable.submit(wanted(name)) for name in names]
    generated = [pixels(ticket) for ticket in tickets]
    assert set(loaded(runnable)) == {"sd1", *KINDS}
    alone = {name: pixels(start(name or "sd1").submit(wanted(None))) for name in (None, *KINDS)}
    for name, picture, ticket in zip(names, generated, tickets, strict=True):
        assert np.abs(picture - alone[name]).max() <= 2
        assert ticket.future.result().parameters.model == (name or "sd1")


def test_loras_of_requests_that_waited_are_read_aside(
    tiny_model: TinyModel,
    several: Callable[..., StableDiffusionRunnable],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No step waits for the disk, and who leaves meanwhile takes nothing along."""
    test_lora.write(tmp_path, "ink", tiny_model("sd2"))
    runnable, load = several(lora_dir=str(tmp_path)), Loras.load
    threads, read, go = list[str](), threading.Event(), threading.Event()

    def slow(self: Loras, parameters: Any) -> Any:
        threads.append(threading.current_thread().name.partition("_")[0])
        read.set()
        assert go.wait(300)
        return load(self, parameters)

    monkeypatch.setattr(Loras, "load", slow)
    uses = (LoraUse(name="ink"),)
    kept, gone = (runnable.submit(wanted("sd2", loras=uses)) for _ in range(2))
    assert read.wait(300)
    gone.cancel()
    assert pixels(runnable.submit(wanted(None))).any(), "the others go on"
    go.set()
    assert pixels(kept).any()
    assert isinstance(gone.future.exception(300), Cancelled)
    assert set(threads) == {"models"}
    assert runnable.load() == Load()


def test_an_unknown_name_is_refused_with_those_that_are_known(start: Start) -> None:
    runnable = start("sd1")
    with pytest.raises(UnknownName, match="known: sd1") as refused:
        runnable.submit(wanted("sd15"))
    assert refused.value.loc == ("model",)
    with pytest.raises(UnknownName):
        runnable.plan(wanted("sd15"))
    assert pixels(runnable.submit(wanted("sd1"))).shape == (64, 64, 3)


def test_the_one_unused_for_longest_makes_room(
    several: Callable[..., StableDiffusionRunnable], budget: float
) -> None:
    runnable = several(models_memory_gb=budget)
    for name in ("sd2", "sdxl", "sd2"):
        pixels(runnable.submit(wanted(name)))
        assert name in loaded(runnable)
    assert "sdxl" not in loaded(runnable)
    assert loaded(runnable)[0] == "sd1"  # always stays


def test_what_is_put_away_is_freed(
    several: Callable[..., StableDiffusionRunnable], budget: float
) -> None:
    runnable = several(models_memory_gb=budget)
    kept = runnable.submit(wanted("sd2"))  # clients keep their tickets for a while
    pixels(kept)
    assert runnable._pool is not None
    unet = weakref.ref(runnable._pool.loaded["sd2"].base.unet)
    pixels(runnable.submit(wanted("sdxl")))
    gc.collect()
    assert unet() is None


def test_models_take_turns_when_they_do_not_fit(
    several: Callable[..., StableDiffusionRunnable], budget: float, roomy: StableDiffusionRunnable
) -> None:
    runnable = several(models_memory_gb=budget)
    tickets = [runnable.submit(wanted(KINDS[i % 3], seed=i)) for i in range(12)]
    expected = [pixels(roomy.submit(wanted(KINDS[i % 3], seed=i))) for i in range(12)]
    for ticket, picture in zip(tickets, expected, strict=True):
        assert np.abs(pixels(ticket) - picture).max() <= 2


def test_one_that_never_fits_says_so(several: Callable[..., StableDiffusionRunnable]) -> None:
    runnable = several(models_memory_gb=1e-6)
    with pytest.raises(ConfigurationError, match="SD_MODELS_MEMORY_GB"):
        runnable.submit(wanted("sd2")).future.result(timeout=300)
    pixels(runnable.submit(wanted(None)))


def test_a_broken_source_fails_its_requests_alone(start: Start, tmp_path: Path) -> None:
    runnable = start("sd1", models=f"broken={tmp_path}")
    broken = [runnable.submit(wanted("broken")) for _ in range(3)]
    assert pixels(runnable.submit(wanted(None))).shape == (64, 64, 3)
    for ticket in broken:
        with pytest.raises(ConfigurationError, match="the model broken cannot be loaded"):
            ticket.future.result(timeout=300)
    assert runnable.load() == Load()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Return an event; further models are read only once it is set."""
    go, read = threading.Event(), ModelPool._read_from_source

    def read_slowly(pool: ModelPool, name: str) -> LoadedModel:
        go.wait(300)
        return read(pool, name)

    monkeypatch.setattr(ModelPool, "_read_from_source", read_slowly)
    yield go
    go.set()


def test_who_waits_for_a_model_can_leave(
    several: Callable[..., StableDiffusionRunnable], slow: threading.Event
) -> None:
    runnable = several()
    cancelled, late = runnable.submit(wanted("sd2")), runnable.submit(wanted("sd2", deadline_s=0.2))
    stays = runnable.submit(wanted("sd2"))
    assert runnable.load().waiting == 3
    cancelled.cancel()
    with pytest.raises(Cancelled):
        cancelled.future.result(timeout=300)
    with pytest.raises(DeadlineExceeded):
        late.future.result(timeout=300)
    assert pixels(runnable.submit(wanted(None))).shape == (64, 64, 3)  # others go on meanwhile
    assert runnable.load().waiting == 1, "they have left"
    slow.set()
    assert pixels(stays).shape == (64, 64, 3)


def test_a_stop_ends_those_that_wait(
    several: Callable[..., StableDiffusionRunnable], slow: threading.Event
) -> None:
    runnable = several()
    ticket = runnable.submit(wanted("sd2"))
    assert not runnable.drain(timeout_s=0.1)
    with pytest.raises(NotReady):
        runnable.submit(wanted("sd2"))
    slow.set()
    runnable.close()
    with pytest.raises(NotReady):
        ticket.future.result(timeout=300)


def test_only_so_many_wait_for_models(
    several: Callable[..., StableDiffusionRunnable], slow: threading.Event
) -> None:
    runnable = several()
    tickets = [runnable.submit(wanted("sd2", steps=1)) for _ in range(MOST_WAITING)]
    with pytest.raises(OverCapacity):
        runnable.submit(wanted("sd2"))
    for ticket in tickets:
        ticket.cancel()
    slow.set()
    wait([ticket.future for ticket in tickets], 60)
    assert runnable.drain(timeout_s=30)


def test_plan_of_a_model_that_is_not_loaded(
    several: Callable[..., StableDiffusionRunnable],
) -> None:
    runnable = several()
    assert runnable.plan(wanted("sd2")).steps == 0
    pixels(runnable.submit(wanted("sd2")))
    assert runnable.plan(wanted("sd2")).steps > 0


def test_reading_a_model_does_not_change_the_images_of_others(start: Start) -> None:
    """transformers and diffusers set PyTorch's default dtype while they build a model."""
    runnable = start("sdxl")
    expected = pixels(runnable.submit(wanted(None, steps=8)))
    torch.set_default_dtype(torch.float16)
    try:
        ticket = runnable.submit(wanted(None, steps=8))
        generated = pixels(ticket)
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.abs(generated - expected).max() <= 2


def test_the_default_cannot_be_named_again(tiny_model: TinyModel, start: Start) -> None:
    with pytest.raises(ConfigurationError, match="SD_MODELS names sd1"):
        start("sd1", models=f"sd1={tiny_model('sd2')}")


def test_idle_models_are_loaded_without_delay(
    several: Callable[..., StableDiffusionRunnable], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is woken by the request and by the model: it never looks around by itself here."""
    monkeypatch.setattr(loop, "IDLE_S", 3600.0)
    runnable = several()
    assert pixels(runnable.submit(wanted("sd2"))).shape == (64, 64, 3)
