"""A job of the Gradio page: from its parameters to a finished picture, with progress meanwhile."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from ui.client import FINAL, NOT_THERE, Service, ServiceError, problem

#: previews per job, at most about
PREVIEWS = 15
#: a lost service is looked for this often, and this many seconds apart
RECONNECTS, RECONNECT_S = 60, 1.0
Events = AsyncGenerator[tuple[str, dict[str, Any]], None]


async def run(
    service: Service, parameters: Mapping[str, Any], key: str
) -> AsyncGenerator[dict[str, Any]]:
    """Submit a job; yield its document, progress events, and its document when it has ended.

    A listener that leaves before the end (a closed tab) cancels the job.

    Raises:
        ServiceError: The job was refused, or the service was lost.
    """
    job = await service.submit(parameters, key)
    ended = False
    every = max(1, job["steps"] // PREVIEWS)
    try:
        yield job
        async with aclosing(_follow(service, job["id"], key, every)) as events:
            async for kind, data in events:
                ended = kind in FINAL
                yield data
    finally:
        if not ended:
            with suppress(ServiceError):
                await service.cancel(job["id"], key)


async def _follow(service: Service, job: str, key: str, preview_every: int) -> Events:
    """Yield all events; a lost connection is opened again, as jobs outlive it and restarts."""
    for _ in range(RECONNECTS):
        try:
            async with aclosing(service.events(job, key, preview_every=preview_every)) as events:
                async for kind, data in events:
                    yield kind, data
                    if kind in FINAL:
                        return
        except ServiceError as error:
            if error.status not in NOT_THERE:
                raise
        await asyncio.sleep(RECONNECT_S)
    raise ServiceError("the connection to the service was lost; the image may still be finished")


async def picture_of(
    service: Service, job: Mapping[str, Any], key: str
) -> tuple[dict[str, Any], bytes]:
    """Return a job's image, as its document describes it, and its file.

    Raises:
        ServiceError: The job failed, for the reason that the error names.
    """
    if job["state"] == "failed":
        error = job.get("error") or {}
        raise problem(error, int(error.get("status") or 500))
    image = job["images"][0]
    return image, await service.image(job["id"], 0, key)


def decoded(preview: str) -> bytes:
    """Return the file of a preview, which events carry in base64."""
    return base64.b64decode(preview)


def line(event: Mapping[str, Any]) -> str:
    """Return how far a job is, in words."""
    parts = [_where(event)]
    if event.get("eta_s"):
        parts.append(f"about {max(1, round(event['eta_s']))} s left")
    return " · ".join(parts)


def _where(event: Mapping[str, Any]) -> str:
    if event.get("state") == "queued":
        ahead = event.get("position") or 0
        return f"Waiting, {ahead} before this" if ahead else "Next in line"
    return f"Step {event.get('step') or 0} of {event.get('steps') or '?'}"
