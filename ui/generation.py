"""A job of the page: from its fields to finished images, with what to show meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from ui.client import FINAL, NOT_THERE, Files, Service, ServiceError, problem

#: previews per job, at most about
PREVIEWS = 15
#: a lost service is looked for this often, and this many seconds apart
RECONNECTS, RECONNECT_S = 60, 1.0
Events = AsyncGenerator[tuple[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Shown:
    """An image of the session.

    Attributes:
        data: Its file, as the service made it.
        parameters: The parameters that make it again, its own seed included.
    """

    data: bytes
    name: str
    task: str
    finish_reason: str
    parameters: dict[str, Any] = field(default_factory=dict)


async def run(
    service: Service, task: str, parameters: Mapping[str, Any], files: Files, key: str
) -> AsyncGenerator[dict[str, Any]]:
    """Submit a job; yield its document, progress events, and its document when it has ended.

    A listener that leaves before the end (a closed tab) cancels the job.

    Raises:
        ServiceError: The job was refused, or the service was lost.
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


async def collect(service: Service, job: Mapping[str, Any], key: str) -> list[Shown]:
    """Return the images of a job that has succeeded.

    Raises:
        ServiceError: The job failed, for the reason that the error names.
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
    """Return one image's own parameters, which alone make the same image."""
    own = {name: image[name] for name in ("seed", "width", "height") if image.get(name)}
    return {**job["parameters"], **own, "num_images_per_prompt": 1}
