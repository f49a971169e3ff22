"""What tests look at inside a started runnable."""

from __future__ import annotations

from typing import Any

from runnables.engine.engine import Engine
from runnables.engine.loaded_model import LoadedModel
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
