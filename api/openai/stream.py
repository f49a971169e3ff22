"""Answers to `stream=true`: previews and then the images, as server-sent events."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.generation import Generation, Outcome
from api.http.internal import internal
from api.openai import answers, errors
from api.openai.translate import ImagesBody
from api.progress.live import Listener
from runnables.errors import Cancelled, StableDiffusionError
from runnables.images import codec
from runnables.parameters import Task
from runnables.ticket import Ticket

HEARTBEAT_S = 15.0  # proxies close connections that are silent for a minute
LOOK_S = 1.0  # how often to look whether it has ended, should the word of it be missed
#: OpenAI counts tokens; there are none here
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


@dataclass(frozen=True)
class Kind:
    """The name of the events at OpenAI, and the task of what is refused before it is read."""

    name: str
    task: Task


GENERATION = Kind("image_generation", "txt2img")
EDIT = Kind("image_edit", "img2img")


class Events(StreamingResponse):
    """A stream that releases what belongs to it however it ends, begun or not."""

    def __init__(
        self, events: AsyncIterator[str], resources: ExitStack, headers: Mapping[str, str]
    ) -> None:
        every = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers}
        super().__init__(events, media_type="text/event-stream", headers=every)
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, and release the resources."""
        with self._resources:
            await super().__call__(scope, receive, send)


async def events(
    generation: Generation,
    outcome: Outcome,
    ticket: Ticket,
    listener: Listener,
    body: ImagesBody,
    kind: Kind,
) -> AsyncIterator[str]:
    """Yield `partial_image` events, as many as requested or fewer, then `completed` per image.

    Args:
        outcome: It hears how the stream ends.
    """
    outcome.status = Cancelled.status  # until all is sent: the client may go away
    try:
        async for seen in _previews(ticket, listener, body.partial_images):
            if seen is None:
                yield ": still here\n\n"  # a comment, which clients skip
                continue
            index, preview = seen
            picture = await run_in_threadpool(_encoded, preview, body.output_format)
            yield _event(kind, "partial_image", {**picture, "partial_image_index": index}, body)
        result = generation.ended(ticket)
        answers.check(result, generation)
        for image in result.images:
            entry = await run_in_threadpool(answers.image, result, image, body, generation)
            data = {**entry, "size": _size(image.image), "usage": USAGE}
            yield _event(kind, "completed", data, body)
        outcome.status = 200
    except Exception as error:
        known = error if isinstance(error, StableDiffusionError) else internal(error)
        outcome.status = known.status
        yield f"event: error\ndata: {json.dumps(errors.body(known))}\n\n"


async def _previews(
    ticket: Ticket, listener: Listener, wanted: int
) -> AsyncIterator[tuple[int, Image] | None]:
    """Yield numbered previews, evenly spread over the steps, until the ticket has ended.

    None says that there was nothing to yield for a while.
    """
    sent, said = 0, time.monotonic()
    while not ticket.future.done():
        if wanted:  # how many steps there are may be known only later
            listener.every = ticket.progress.steps // (wanted + 1) or int(ticket.progress.steps > 0)
        await listener.wait(LOOK_S)
        seen = listener.take_preview()
        if seen is not None and seen.preview is not None and sent < wanted:
            yield sent, seen.preview
            sent, said = sent + 1, time.monotonic()
        elif time.monotonic() - said > HEARTBEAT_S:
            yield None
            said = time.monotonic()


def _event(kind: Kind, name: str, content: dict[str, Any], body: ImagesBody) -> str:
    data = {
        "type": f"{kind.name}.{name}",
        "created_at": int(time.time()),
        "background": "opaque",
        "output_format": body.output_format,
        "quality": body.quality,
        **content,
    }
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n"


def _encoded(image: Image, kind: codec.Format) -> dict[str, str]:
    data = base64.b64encode(codec.encode(image, kind)).decode()
    return {"b64_json": data, "size": _size(image)}


def _size(image: Image) -> str:
    return f"{image.width}x{image.height}"
