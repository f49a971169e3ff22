"""A job: a request that is stored until it has ended, and some time after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from api.progress.record import Record

#: how far a webhook is; a dead one is tried no more, unless its owner wants it
Delivery = Literal["waiting", "delivered", "dead"]


@dataclass(frozen=True, kw_only=True)
class Job(Record):
    """One job: a row of the store.

    Its parameters have every default and the seed filled in, so that generating them again (after
    a crash) makes the same images.

    Attributes:
        number: The number of its row; jobs are listed by it. It is None before the job is stored.
        caller: In whose share of the machine it is generated: its owner's, or until it has ended
            that of an address (SD_ANONYMOUS=address).
        folder: The name of the folder of its files, inside the store's.
        due: The Unix time by which it should be started; the earliest goes first.
        expires: The Unix time at which it fails if it is not finished.
        seconds: The estimated seconds of work.
        attempts: How often work on it was begun.
        runner: The process that works on it.
        webhook_at: When its webhook is due, or None where it is not.
        webhook_error: Why the last try to deliver it failed, or None.
        images: A description of each image, once the job has succeeded.
    """

    number: int | None = None
    caller: str = ""
    folder: str = ""
    priority: int = 5
    due: float = 0.0
    expires: float | None = None
    seconds: float = 0.0
    attempts: int = 0
    cancel: bool = False
    runner: str | None = None
    started: float | None = None
    images: list[dict[str, Any]] = field(default_factory=list)
    webhook: str | None = None
    webhook_at: float | None = None
    webhook_tries: int = 0
    webhook_error: str | None = None
    fingerprint: str = ""
    trace: str | None = None

    @property
    def delivery(self) -> Delivery | None:
        """The state of its webhook; None without one, and before the job has ended."""
        if self.webhook is None or not self.final:
            return None
        if self.webhook_at is not None:
            return "waiting"
        return "dead" if self.webhook_error else "delivered"
