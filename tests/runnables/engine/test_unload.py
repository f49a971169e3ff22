"""Models are unloaded on demand and when they are idle, and the next request loads them again."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runnables.engine.model_pool import ModelPool
from runnables.errors import ConfigurationError, DeadlineExceeded, NotReady, UnknownName
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from runnables.ticket import Ticket
from tests import tiny
from tests.insides import base_of, model_of

Start = Callable[..., StableDiffusionRunnable]
UNLOADS = 5
REQUESTS = 200


def wanted(seed: int = 1, **options: Any) -> TextToImage:
    return TextToImage(prompt="a cat", num_inference_steps=2, seed=seed, **options)


def pixels(ticket: Ticket) -> np.ndarray:
    return np.asarray(ticket.future.result(timeout=300).images[0].image).astype(int)


def is_loaded(runnable: StableDiffusionRunnable) -> bool:
    return bool(runnable.models()[0]["loaded"])


def are_gone(parts: list[weakref.ref[Any]]) -> bool:
    """Wait for parts to be freed: a thread that has just ended a request may still hold them."""
    end = time.monotonic() + 300
    while any(part() is not None for part in parts) and time.monotonic() < end:
        time.sleep(0.02)
    return all(part() is None for part in parts)


@pytest.mark.parametrize("kind", ["sd1", "flux-dev"])
def test_the_weights_are_gone_and_come_back(start: Start, kind: str) -> None:
    runnable = start(kind)
    before, described = pixels(runnable.submit(wanted())), runnable.describe()
    parts = [weakref.ref(part) for part in base_of(runnable).checkpoint.modules]
    assert len(parts) > 2
    runnable.change_model(kind, load=False)
    assert are_gone(parts)
    assert not is_loaded(runnable) and model_of(runnable).nbytes == 0
    assert runnable.ready and runnable.capacity > 0
    assert {**runnable.describe(), "loaded": True} == described
    assert (pixels(runnable.submit(wanted())) == before).all()
    assert is_loaded(runnable) and model_of(runnable).nbytes > 0


def test_what_a_thread_held_is_collected_later(start: Start) -> None:
    runnable = start("sd1")
    held = [model_of(runnable)]
    parts = [weakref.ref(part) for part in base_of(runnable).checkpoint.modules]
    runnable.change_model("sd1", load=False)
    gc.disable()  # it might come by chance
    try:
        held.clear()
        assert are_gone(parts)
    finally:
        gc.enable()


def test_what_the_start_made_is_collected_too(start: Start) -> None:
    """The first model is made while the collector freezes: modules refer to each other."""
    runnable = start("sd1")
    gc.freeze()
    unet = base_of(runnable).unet
    vars(unet)["circle"] = unet  # not as a module of itself
    gone, unet = weakref.ref(unet), None
    runnable.change_model("sd1", load=False)
    assert gone() is None
    assert gc.get_freeze_count() == 0, "what a thread still holds would stay for ever"


def test_the_refiner_goes_and_comes_with_the_model(
    start: Start, tiny_model: Callable[[str], Path]
) -> None:
    runnable = start("sdxl", refiner=str(tiny_model("sdxl-refiner")))
    before = pixels(runnable.submit(wanted()))
    refiner = model_of(runnable).refiner
    gone, refiner = weakref.ref(refiner), None  # type: ignore[arg-type, var-annotated]
    runnable.change_model("sdxl", load=False)
    assert are_gone([gone])
    assert (pixels(runnable.submit(wanted())) == before).all()


def test_it_can_be_loaded_before_it_is_needed(start: Start) -> None:
    runnable = start("sd1")
    runnable.change_model("sd1", load=True)
    runnable.change_model("sd1", load=False)
    runnable.change_model("sd1", load=False)
    runnable.change_model("sd1", load=True)
    assert is_loaded(runnable)
    with pytest.raises(UnknownName, match="known: sd1"):
        runnable.change_model("sd15", load=True)


def test_an_idle_model_is_unloaded(start: Start) -> None:
    runnable = start("sd1", idle_unload_s=0.2)
    before = pixels(runnable.submit(wanted()))
    end = time.monotonic() + 300
    while is_loaded(runnable):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert runnable.ready
    assert (pixels(runnable.submit(wanted())) == before).all()


def test_the_deadline_is_in_force_while_it_is_reloaded(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = start("sd1")
    go, read = threading.Event(), ModelPool._read_from_source
    monkeypatch.setattr(
        ModelPool, "_read_from_source", lambda pool, name: (go.wait(300), read(pool, name))[1]
    )
    runnable.change_model("sd1", load=False)
    late, stays = runnable.submit(wanted(deadline_s=0.2)), runnable.submit(wanted())
    with pytest.raises(DeadlineExceeded):
        late.future.result(timeout=300)
    assert runnable.ready and not stays.future.done()
    go.set()
    assert pixels(stays).shape == (64, 64, 3)


def test_a_model_that_has_gone_bad_says_so_and_comes_back(tmp_path: Path) -> None:
    folder = tiny.build(tmp_path / "model", "sd1")
    runnable = StableDiffusionRunnable(Settings(model=str(folder), threads=1))
    runnable.start()
    runnable.change_model("model", load=False)
    aside = folder.rename(tmp_path / "aside")
    with pytest.raises(ConfigurationError, match="the model model cannot be loaded"):
        runnable.submit(wanted()).future.result(timeout=300)
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        runnable.change_model("model", load=True)
    assert runnable.ready
    aside.rename(folder)
    assert pixels(runnable.submit(wanted())).shape == (64, 64, 3)
    runnable.close()


def test_a_stop_ends_the_orders_that_are_open(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = start("sd1")
    runnable.change_model("sd1", load=False)
    go = threading.Event()
    monkeypatch.setattr(ModelPool, "_read_from_source", lambda pool, name: go.wait(300))
    assert runnable._pool is not None
    order = runnable._pool.order("sd1", load=True)
    runnable.close()
    with pytest.raises(NotReady):
        order.result(timeout=300)
    go.set()


def test_requests_around_unloads_are_all_served(start: Start) -> None:
    """Requests come from several clients all the time, while the operator unloads the model."""
    runnable = start("sd1")
    expected = [pixels(runnable.submit(wanted(seed))) for seed in range(4)]
    pool, served = ThreadPoolExecutor(4), Counter[str]()

    def generate(seed: int) -> bool:
        generated = pixels(runnable.submit(wanted(seed % 4)))
        served["all"] += 1
        return bool(np.abs(generated - expected[seed % 4]).max() <= 2)

    requests = [pool.submit(generate, i) for i in range(REQUESTS)]
    for i in range(UNLOADS):
        while served["all"] < REQUESTS * (i + 1) // (UNLOADS + 1):
            time.sleep(0.01)
        assert gone_after_unload(runnable)
    assert all(request.result(timeout=300) for request in requests)


def gone_after_unload(runnable: StableDiffusionRunnable) -> bool:
    """The last threads may still be on their way out of the functions that held a module."""
    runnable.change_model("sd1", load=True)  # it may still be gone since the unload before
    parts = [weakref.ref(part) for part in base_of(runnable).checkpoint.modules]
    runnable.change_model("sd1", load=False)
    end = time.monotonic() + 300
    while any(part() is not None for part in parts) and time.monotonic() < end:
        time.sleep(0.02)
    return bool(parts) and all(part() is None for part in parts)
