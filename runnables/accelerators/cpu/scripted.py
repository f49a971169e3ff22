"""A function of tensors becomes TorchScript where a trace takes it in, and stays Python elsewhere.

A trace keeps the branches and loops that it saw, so what depends on a call's rows has to be a
script. Outside of a trace a script would cost more than Python: TorchScript's optimizer takes up to
0.1 s of a function's first calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

import torch

R = TypeVar("R")


def scripted(function: Callable[..., R]) -> Callable[..., R]:
    """Return the function, which is scripted when a trace calls it first."""
    script = cache(lambda: torch.jit.script(function))

    @wraps(function)
    def call(*args: Any) -> R:
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
        run: Callable[..., R] = script() if tracing else function
        return run(*args)

    return call
