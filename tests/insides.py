"""What tests look at inside a started runnable."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from runnables.accelerators.base import Accelerator
from runnables.accelerators.cpu.device import Cpu
from runnables.engine.engine import Engine
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.scheduling import Turns
from runnables.runnable import StableDiffusionRunnable


def model_of(runnable: StableDiffusionRunnable) -> LoadedModel:
    """The default model."""
    assert runnable._pool is not None
    return runnable._pool.first


def base_of(runnable: StableDiffusionRunnable) -> Any:
    """The default model's family."""
    return model_of(runnable).base


def extension_of(runnable: StableDiffusionRunnable, name: str) -> Any:
    """The default model's extension of this name."""
    return next(one for one in model_of(runnable).extensions if one.name == name)


def engine_of(runnable: StableDiffusionRunnable) -> Engine:
    """The engine that serves it."""
    assert runnable._engine is not None
    return runnable._engine


def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every call of a UNet run its modules, which the test watches."""
    monkeypatch.setattr(Cpu, "denoise", Accelerator.denoise)


@contextmanager
def sharing(monkeypatch: pytest.MonkeyPatch, family: type[Any]) -> Iterator[list[int]]:
    """Have rows of one batch key share each call; yields the rows of the calls.

    The first call waits until the block is left. How much time a call may take, which is measured,
    does not bound its rows.
    """
    rows: list[int] = []
    submitted = threading.Event()
    original = family.denoise

    def denoise(self: Any, sample: Any, *rest: Any, **named: Any) -> Any:
        submitted.wait(300)
        rows.append(len(sample))
        return original(self, sample, *rest, **named)

    monkeypatch.setattr(family, "denoise", denoise)
    monkeypatch.setattr(Turns, "_fill", lambda _self, _first, alike, *_: alike)
    try:
        yield rows
    finally:
        submitted.set()
