"""The progress of a job as server-sent events (HTML standard, section 9.2)."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from api.http.stopping import stopping
from api.progress.live import Hub, Key
from runnables.errors import NotReady
from runnables.images import codec
from runnables.ticket import Progress

HEARTBEAT_S = 15.0  # proxies close connections that are silent for a minute
LOOK_S = 0.5  # how often to look for what no listener hears of: queue positions, other processes
PROGRESS = ("state", "step", "steps", "position", "eta_s")
FINAL = {"succeeded", "failed", "cancelled"}


async def stream(
    find: Callable[[], dict[str, Any] | None], hub: Hub, key: Key, preview_every: int
) -> AsyncIterator[str]:
    """Yield `progress` whenever it has changed, then one event that is named by the final state.

    Args:
        find: Returns the job's document now; None where it is forgotten. It may raise NotReady.
        preview_every: The steps between previews; 0 means none.
    """
    last: dict[str, Any] | None = None
    sent = time.monotonic()
    with hub.listening(key, preview_every) as listener:
        while not stopping():
            try:
                found = await asyncio.to_thread(find)
            except NotReady:  # the service stops: the client connects again
                return
            if found is None:
                return
            if found["state"] in FINAL:
                yield event(found["state"], found)
                return
            seen = listener.take_preview()
            progress = {name: found[name] for name in PROGRESS}
            if seen or _differs(progress, last):
                preview = await asyncio.to_thread(_jpeg, seen) if seen else None
                yield event("progress", {**progress, "preview": preview})
                last, sent = progress, time.monotonic()
            elif time.monotonic() - sent > HEARTBEAT_S:
                yield ": still here\n\n"
                sent = time.monotonic()
            await listener.wait(LOOK_S)


def event(name: str, data: dict[str, Any]) -> str:
    """Return one event; JSON has no line break."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _differs(progress: dict[str, Any], last: dict[str, Any] | None) -> bool:
    """Return whether more has changed than the estimate of a step that goes on."""
    if last is None:
        return True
    return any(progress[name] != last[name] for name in PROGRESS if name != "eta_s")


def _jpeg(progress: Progress) -> str:
    """Return the preview in base64."""
    assert progress.preview is not None
    return base64.b64encode(codec.encode(progress.preview, "jpeg")).decode()
