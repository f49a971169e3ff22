"""Synchronous requests, which can be looked up while they run and for some minutes after.

They are kept in memory only, and without images: those went to the client that waited for them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from api.progress.live import Hub, Key, Live
from api.progress.record import Record, State, failure
from runnables.errors import Cancelled, StableDiffusionError
from runnables.ticket import Ticket

KEPT_S = 600.0
KEPT = 1000  # requests at most; the oldest ones that have ended are forgotten first


class Requests:
    """Requests by owner and id. It is thread-safe. A repeated id names the latest request."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._records: OrderedDict[Key, tuple[Record, Live]] = OrderedDict()

    def begin(self, owner: str, id: str) -> Live:
        """Return what follows a request that is about to be submitted.

        Its `on_step` is to be the ticket's.
        """
        return Live(self._hub, (owner, id))

    def follow(self, live: Live, ticket: Ticket) -> None:
        """Remember a request that was accepted, until some minutes after its end."""
        live.ticket = ticket
        owner, id = live.key
        record = Record(
            id=id,
            owner=owner,
            task=ticket.parameters.task,
            parameters=ticket.parameters.model_dump(mode="json", exclude_none=True),
            steps=ticket.progress.steps,
        )
        with self._lock:
            self._records[live.key] = (record, live)
            self._records.move_to_end(live.key)
            self._forget()
        ticket.future.add_done_callback(lambda _: self._end(record, live))

    def find(self, owner: str, id: str) -> tuple[Record, Live] | None:
        """Return a request, with its ticket while it has one."""
        with self._lock:
            return self._records.get((owner, id))

    def _end(self, record: Record, live: Live) -> None:
        ticket = live.release()
        if ticket is None:
            return
        error = ticket.future.exception()
        ended = replace(
            record,
            state=_state(error),
            step=ticket.progress.step,
            steps=ticket.progress.steps,
            finished=time.time(),
            error=_reason(error),
        )
        with self._lock:
            if self._records.get(live.key, (None, None))[1] is live:
                self._records[live.key] = (ended, Live(self._hub, live.key))  # without its images
        self._hub.changed(live.key)
        self._hub.changed((live.key[0], ticket.id))

    def _forget(self) -> None:
        old = time.time() - KEPT_S
        ended = [key for key, (record, _) in self._records.items() if record.finished]
        excess = len(self._records) - KEPT
        for i, key in enumerate(ended):
            if i < excess or (self._records[key][0].finished or 0) < old:
                del self._records[key]


def _state(error: BaseException | None) -> State:
    if error is None:
        return "succeeded"
    return "cancelled" if isinstance(error, Cancelled) else "failed"


def _reason(error: BaseException | None) -> dict[str, Any] | None:
    if not isinstance(error, StableDiffusionError) or isinstance(error, Cancelled):
        return None
    return failure(error)
