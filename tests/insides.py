"""What tests look at inside a started runnable."""

from __future__ import annotations

from runnables.engine.plan import Planner
from runnables.families.base import Pipeline
from runnables.runnable import StableDiffusionRunnable


def planner_of(runnable: StableDiffusionRunnable) -> Planner:
    """Of the default model."""
    assert runnable._shelf is not None
    return runnable._shelf.first


def base_of(runnable: StableDiffusionRunnable) -> Pipeline:
    """The default model's pipeline."""
    return planner_of(runnable).base
