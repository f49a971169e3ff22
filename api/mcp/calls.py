"""One caller's tool calls: each task is a job, which is followed until it has ended.

A job goes on when its caller loses the connection, and can be followed again.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent
from starlette.requests import Request

from api.generation import Generation
from api.http import uploads
from api.http.decoding import decoded
from api.http.internal import internal
from api.http.stopping import stopping
from api.http.validation import validated
from api.jobs import submission
from api.jobs.document import placed
from api.jobs.events import FINAL, LOOK_S
from api.jobs.jobs import Jobs
from api.mcp import tools
from runnables.errors import InvalidInput, NotReady, StableDiffusionError, UnknownName, error_body
from runnables.images import codec

Report = Callable[[float, float, str], Awaitable[None]]
LINK = re.compile(r"/jobs/([^/]+)/images/(\d{1,3})")


class Calls:
    """The calls of one request.

    Args:
        request: It carries the key, and says where the caller sees the service.
        owner: The key's hash.
    """

    def __init__(self, jobs: Jobs, generation: Generation, request: Request, owner: str) -> None:
        self._jobs = jobs
        self._generation = generation
        self._request = request
        self._owner = owner
        self._base = str(request.base_url).rstrip("/")

    async def call(self, name: str, arguments: dict[str, Any], report: Report) -> CallToolResult:
        """Call a tool. What goes wrong is a result, too: the agent reads it and mends its call."""
        try:
            return await self._called(name, arguments, report)
        except StableDiffusionError as error:
            known = error
        except Exception as error:  # the SDK would answer with its text
            known = internal(error)
        return _failed(known.message, {**error_body(known), "status": known.status})

    async def _called(self, name: str, arguments: dict[str, Any], report: Report) -> CallToolResult:
        if name in tools.TASKS:
            return await self._generate(name, arguments, report)
        if name == "list_models":
            self._generation.check_ready()
            models = await asyncio.to_thread(self._generation.runnable.models)
            return _result({"models": models})
        id = arguments.get("id")
        if name not in ("follow_job", "cancel_job"):
            raise UnknownName(f"there is no tool {name!r}", loc=("name",))
        if not isinstance(id, str):
            raise InvalidInput("id must be the id of a job", loc=("id",))
        if name == "follow_job":
            return await self._follow(id, _shown(arguments.get("show", "content")), report)
        return _result(self._known(await asyncio.to_thread(self._jobs.cancel, self._owner, id), id))

    async def _generate(
        self, name: str, arguments: dict[str, Any], report: Report
    ) -> CallToolResult:
        task, _ = tools.TASKS[name]
        parameters, beside = tools.divided(arguments)
        shown = _shown(beside["show"])
        self._generation.keys.spend(self._request.headers)
        self._generation.check_ready()
        images = {
            field: await self._image(beside[field], field)
            for field in ("img", "mask")
            if beside[field] is not None
        }
        wanted = validated(submission.JobRequest, {"task": task, "parameters": parameters})
        sent = submission.checked(wanted, images, ())
        address = self._request.client.host if self._request.client else ""
        job, _ = await asyncio.to_thread(self._jobs.submit, self._owner, sent, address)
        if beside["wait"] is False:
            return _result(self._known(await asyncio.to_thread(self._jobs.document, job), job.id))
        return await self._follow(job.id, shown, report)

    async def _image(self, text: object, field: str) -> Any:
        """Return an image that is sent as a text, decoded as that of a form is."""
        if not isinstance(text, str):
            raise InvalidInput(f"{field} must be a text: {tools.IMAGE}", loc=(field,))
        settings = self._generation.settings
        link = LINK.fullmatch(text.removeprefix(self._base))
        if link:
            data = await asyncio.to_thread(self._own, link[1], int(link[2]), field)
        else:
            data = await uploads.read(text, field, settings)
        if field == "mask":
            return await decoded(codec.decode_mask, data, max_pixels=settings.max_pixels)
        return await decoded(codec.decode, data, max_pixels=settings.max_pixels, field=field)

    def _own(self, id: str, index: int, field: str) -> bytes:
        job = self._jobs.store.get(self._owner, id)
        unknown = UnknownName(f"{field}: there is no such image here", loc=(field,))
        if job is None or index >= len(job.images):
            raise unknown
        try:
            return self._jobs.file(job, index).read_bytes()
        except FileNotFoundError as error:  # the job is being forgotten, or somebody removed it
            raise unknown from error

    async def _follow(self, id: str, shown: str, report: Report) -> CallToolResult:
        step = -1
        with self._jobs.hub.listening((self._owner, id), 0) as listener:
            while not stopping():
                found = await asyncio.to_thread(self._jobs.find, self._owner, id)
                document = self._known(found, id)
                if document["state"] in FINAL:
                    return await asyncio.to_thread(self._ended, document, shown)
                if document["step"] > step:
                    step = document["step"]
                    await report(step, document["steps"], f"job {id} is {document['state']}")
                await listener.wait(LOOK_S)
        raise NotReady(f"the service is stopping; job {id} goes on when it is back")

    def _ended(self, document: dict[str, Any], shown: str) -> CallToolResult:
        if document["state"] != "succeeded":
            error = document["error"] or {"error": f"job {document['id']} was cancelled"}
            return _failed(error["error"], error)
        blocks: list[ContentBlock] = []
        for index, image in enumerate(document["images"]):
            kind = image["content_type"]
            if shown == "content":
                data = base64.b64encode(self._own(document["id"], index, "id")).decode()
                blocks.append(ImageContent(data=data, mime_type=kind))
            name = f"image {index}"
            blocks.append(ResourceLink(name=name, uri=image["url"], mime_type=kind))
        return _result(document, blocks)

    def _known(self, found: dict[str, Any] | None, id: str) -> dict[str, Any]:
        """Return a job's document, with addresses that work anywhere."""
        if found is None:
            raise UnknownName(f"there is no job {id!r}", loc=("id",))
        return placed(found, self._base)


def _shown(show: object) -> str:
    if show not in tools.SHOWN["enum"]:
        raise InvalidInput("show must be content or links", loc=("show",))
    return str(show)


def _result(content: dict[str, Any], blocks: list[ContentBlock] | None = None) -> CallToolResult:
    text = TextContent(text=json.dumps(content))
    return CallToolResult(content=[*(blocks or []), text], structured_content=content)


def _failed(message: str, error: dict[str, Any]) -> CallToolResult:
    text = TextContent(text=message)
    return CallToolResult(content=[text], structured_content=error, is_error=True)
