"""The record of one request: what was requested, by whom, and how far it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from runnables.errors import StableDiffusionError, error_body
from runnables.parameters import Task

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class Record:
    """A request, whether somebody waits for its answer or it is stored as a job.

    Attributes:
        owner: The key that made it; nobody else sees it.
        parameters: The parameters as JSON.
        error: The reason, once the request has failed: `{"error", "detail", "status"}`.
    """

    id: str
    owner: str
    task: Task
    parameters: dict[str, Any]
    state: State = "queued"
    step: int = 0
    steps: int = 0
    created: float = field(default_factory=time.time)
    finished: float | None = None
    error: dict[str, Any] | None = None

    @property
    def final(self) -> bool:
        """True once the request has ended; a final record never changes again."""
        return self.state in FINAL


def failure(error: StableDiffusionError) -> dict[str, Any]:
    """Return an error as a record keeps it."""
    return {**error_body(error), "status": error.status}
