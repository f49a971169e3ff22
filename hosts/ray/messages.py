"""The messages between the ingress and its replicas. All of them pickle without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runnables.errors import StableDiffusionError
from runnables.parameters import AnyParameters
from runnables.ticket import Inputs, Progress, Result

Description = dict[str, Any]
#: (stage, seconds, rows) of one piece of work, as the runnable's `observe` hook gets it
Observation = tuple[str, float, int]


@dataclass(frozen=True)
class Order:
    """A request on its way to a replica.

    Attributes:
        inputs: the request's pictures.
        options: what `submit` takes by name, beside its callbacks.
        every_step: send Progress after every step; else only when the state changes.
        submitted: seconds since the epoch, so that waiting for a replica counts against deadlines.
    """

    parameters: AnyParameters
    inputs: Inputs
    options: Mapping[str, Any]
    every_step: bool
    submitted: float


@dataclass(frozen=True)
class Outcome:
    """The last message of an order: a result or an error, and what the replica reports with it.

    The error is a value, not raised: Ray would wrap it and lose its attributes.

    Attributes:
        observations: what the replica has measured since its last outcome.
        replica: the one that sends it.
        models: descriptions of all models, as they are in this replica now.
    """

    ended: Result | StableDiffusionError
    observations: tuple[Observation, ...] = ()
    replica: str = ""
    models: tuple[Description, ...] = ()


Message = Progress | Outcome
