"""A drawing on its way: from the page's fields to a finished job, with what to show meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from ui.client import FINAL, NOT_THERE, Files, Service, ServiceError, problem

#: previews a drawing, at most about
PREVIEWS = 15
#: a lost service is looked for this often, and this many seconds apart
RECONNECTS, RECONNECT_S = 60, 1.0
Events = AsyncGenerator[tuple[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Shown:
    """An image of the session.

    Attributes:
        data: its file, as the service made it.
        parameters: what it was drawn with, its own seed included.
    """

    data: bytes
    name: str
    task: str
    finish_reason: str
    parameters: dict[str, Any] = field(default_factory=dict)


async def run(
    service: Service, task: str, parameters: Mapping[str, Any], files: Files, key: str
) -> AsyncGenerator[dict[str, Any]]:
    """Submit a job and follow it: its document, progress events, its document when it has ended.

    Whoever stops listening before the end (a closed tab) cancels the job.

    Raises:
        ServiceError: refused, or the service was lost.
    """
    job = await service.submit(task, parameters, files, key)
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
    """All events; a lost connection is taken up again, as jobs outlive it and restarts too."""
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
    raise ServiceError("the service was lost while it drew; the image may still get done")


async def collect(service: Service, job: Mapping[str, Any], key: str) -> list[Shown]:
    """The images of a job that has succeeded.

    Raises:
        ServiceError: the job failed; its own words.
    """
    if job["state"] == "failed":
        error = job.get("error") or {}
        raise problem(error, int(error.get("status") or 500))
    return [
        Shown(
            data=await service.image(image["url"], key),
            name=f"{job['id'][:12]}-{index}.png",
            task=job["task"],
            finish_reason=image["finish_reason"],
            parameters=_of_image(job, image),
        )
        for index, image in enumerate(job["images"])
    ]


def _of_image(job: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """One image's own parameters: drawn alone with them, it is the same image."""
    own = {name: image[name] for name in ("seed", "width", "height") if image.get(name)}
    return {**job["parameters"], **own, "num_images_per_prompt": 1}
