"""Further models in a drawer's memory: Ray says which, and none goes while it draws."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from runnables.parameters import AnyParameters
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Plan, Result

Told = TypeVar("Told", Plan, Result)


class Gone(Exception):
    """Ray has dropped this model for another."""


class Held:
    """A further model under the name that requests call it by.

    Args:
        runnable: has started; its own name for the model does not matter.
    """

    def __init__(self, name: str, runnable: StableDiffusionRunnable) -> None:
        self.name = name
        self._runnable = runnable
        self._users = 0
        self._gone = False
        self._free = threading.Condition()

    @contextmanager
    def use(self) -> Iterator[StableDiffusionRunnable]:
        """As long as the block runs, the model stays.

        Raises:
            Gone: it was too late.
        """
        with self._free:
            if self._gone:
                raise Gone
            self._users += 1
        try:
            yield self._runnable
        finally:
            with self._free:
                self._users -= 1
                self._free.notify_all()

    def describe(self) -> dict[str, Any]:
        """As `GET /models` tells it."""
        return {**self._runnable.describe(), "name": self.name}

    def __del__(self) -> None:
        """Ray calls it, in a thread, when another model needs the room; it waits for the users."""
        with self._free:
            self._free.wait_for(lambda: self._users == 0)
            self._gone = True
        self._runnable.close()


def unnamed(parameters: AnyParameters) -> AnyParameters:
    """For a further model's own runnable, which knows no other and may call it differently."""
    return parameters.model_copy(update={"model": None})


def named(told: Told, model: str) -> Told:
    """With the name that the request called the model by; "": as it is."""
    if not model:
        return told
    return replace(told, parameters=told.parameters.model_copy(update={"model": model}))
