"""Synchronous requests, which `/jobs/{id}` knows while they run and for some minutes after.

In memory only, and without images: those have gone to whoever waited for them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from api.jobs.job import Job, State
from api.progress.live import Hub, Key, Live
from runnables.errors import Cancelled, StableDiffusionError, error_body
from runnables.ticket import Ticket

KEPT_S = 600.0
KEPT = 1000  # requests at most; the oldest that have ended are forgotten first


class Requests:
    """Requests by owner and id. Thread-safe. A repeated id names the latest."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._jobs: OrderedDict[Key, tuple[Job, Live]] = OrderedDict()

    def begin(self, owner: str, id: str) -> Live:
        """For a request that is about to be handed in; its `on_step` is the ticket's."""
        return Live(self._hub, (owner, id))

    def follow(self, live: Live, ticket: Ticket) -> None:
        """Know a request that was accepted, until some minutes after its end."""
        live.ticket = ticket
        owner, id = live.key
        parameters = ticket.parameters.model_dump(mode="json", exclude_none=True)
        job = Job(id, owner, ticket.parameters.task, parameters, steps=ticket.progress.steps)
        with self._lock:
            self._jobs[live.key] = (job, live)
            self._jobs.move_to_end(live.key)
            self._forget()
        ticket.future.add_done_callback(lambda _: self._end(job, live))

    def find(self, owner: str, id: str) -> tuple[Job, Live] | None:
        """A request, and its ticket while it has one."""
        with self._lock:
            return self._jobs.get((owner, id))

    def _end(self, job: Job, live: Live) -> None:
        ticket = live.release()
        if ticket is None:
            return
        error = ticket.future.exception()
        ended = replace(
            job,
            state=_state(error),
            step=ticket.progress.step,
            steps=ticket.progress.steps,
            finished=time.time(),
            error=_told(error),
        )
        with self._lock:
            if self._jobs.get(live.key, (None, None))[1] is live:
                self._jobs[live.key] = (ended, Live(self._hub, live.key))  # without its images
        self._hub.changed(live.key)

    def _forget(self) -> None:
        old = time.time() - KEPT_S
        ended = [key for key, (job, _) in self._jobs.items() if job.finished]
        excess = len(self._jobs) - KEPT
        for i, key in enumerate(ended):
            if i < excess or (self._jobs[key][0].finished or 0) < old:
                del self._jobs[key]


def _state(error: BaseException | None) -> State:
    if error is None:
        return "succeeded"
    return "cancelled" if isinstance(error, Cancelled) else "failed"


def _told(error: BaseException | None) -> dict[str, Any] | None:
    if not isinstance(error, StableDiffusionError) or isinstance(error, Cancelled):
        return None
    return {**error_body(error), "status": error.status}
