"""What front and drawers say to each other. All of it pickles, none of it needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runnables.errors import StableDiffusionError
from runnables.parameters import AnyParameters
from runnables.ticket import Progress, Result

#: (stage, seconds, rows) of one piece of work, as the runnable's `observe` hook is told
Observation = tuple[str, float, int]


@dataclass(frozen=True)
class Order:
    """A request on its way to a drawer.

    Attributes:
        inputs: what `submit` takes after the parameters: image, mask.
        options: what `submit` takes by name, beside its callbacks: control images too.
        every_step: send Progress after every step; else only when the state changes.
        submitted: seconds since the epoch, so that waiting for a drawer counts against deadlines.
    """

    parameters: AnyParameters
    inputs: tuple[Any, ...]
    options: Mapping[str, Any]
    every_step: bool
    submitted: float


@dataclass(frozen=True)
class Outcome:
    """The last message of an order: a result or an error, and what the drawer has to tell.

    The error is a value, not raised: Ray would wrap it and lose its attributes.

    Attributes:
        observations: what the drawer has measured since its last outcome.
        drawer: whose outcome it is.
        held: descriptions of the models beside the default that it has now.
    """

    ended: Result | StableDiffusionError
    observations: tuple[Observation, ...] = ()
    drawer: str = ""
    held: tuple[dict[str, Any], ...] = ()


Message = Progress | Outcome
