"""A job: what was asked, by whom, and how far it is."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from runnables.parameters import Task

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
#: what ids may be: they stand in paths, headers and logs
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True)
class Job:
    """One job. Rows of the store, and synchronous requests (which have no number).

    Attributes:
        number: of its row; jobs are listed by it. None: not stored.
        owner: whose key made it; nobody else sees it.
        parameters: with every default and the seed filled in, so that drawing it again (after a
            crash) draws the same images.
        folder: of its files, inside the store's.
        due: the Unix time by which it should be started; the earliest goes first.
        expires: the Unix time at which it fails, drawn or not.
        seconds: estimated seconds of work.
        attempts: how often drawing was begun.
        runner: which process draws it.
        images: once succeeded, a description of each.
        error: once failed, `{"error", "detail", "status"}`.
    """

    id: str
    owner: str
    task: Task
    parameters: dict[str, Any]
    number: int | None = None
    folder: str = ""
    state: State = "queued"
    step: int = 0
    steps: int = 0
    priority: int = 5
    due: float = 0.0
    expires: float | None = None
    seconds: float = 0.0
    attempts: int = 0
    cancel: bool = False
    runner: str | None = None
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    images: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    webhook: str | None = None
    webhook_at: float | None = None
    webhook_tries: int = 0
    fingerprint: str = ""
    trace: str | None = None

    @property
    def final(self) -> bool:
        """Whether it has ended; it never changes again."""
        return self.state in FINAL


def valid_id(text: str) -> bool:
    """Whether a client may call its job, or its request, this."""
    return ID.fullmatch(text) is not None
