"""Requests that only enlarge a picture are run as tasks beside the steps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from runnables.engine.loaded_model import LoadedModel
from runnables.engine.scheduling import Task, Tasks, urgency
from runnables.errors import InvalidInput, PayloadTooLarge
from runnables.parameters import Upscale
from runnables.ticket import GeneratedImage, Inputs, Progress, Result, Ticket, settle
from runnables.upscalers.upscaler import Upscaler

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 16383  # what WebP holds
COST_UNIT = 512 * 512  # pixels of the larger picture


@dataclass(eq=False)
class Enlarge:
    """This kind of `Work` is a ticket to enlarge a picture, with everything decided.

    Attributes:
        size: (height, width) of the larger picture.
        tiles: that its upscaler cuts the picture into; `done` of them are finished.
    """

    ticket: Ticket
    model: LoadedModel
    parameters: Upscale
    image: Image | None
    upscaler: Upscaler
    size: tuple[int, int]
    tiles: int
    seconds: float
    urgency: float
    expires: float
    done: int = 0
    clock: dict[str, float] = field(default_factory=dict)
    rows_to_come = 0.0
    area = 1

    @property
    def steps(self) -> int:
        return self.tiles

    @property
    def share_s(self) -> float:
        return self.seconds

    @property
    def left_s(self) -> float:
        """Return the estimated seconds of the tiles to come."""
        return self.model.cost.turns(self.upscaler.name, self.tiles - self.done)

    def begin(self, prepare: Any, tasks: Tasks) -> None:
        self.clock["taken"] = time.monotonic()
        assert self.image is not None
        tiles = self.upscaler.enlarge(self.image, self.size)
        left = partial(getattr, self, "left_s")
        tasks.add(Task(self, tiles, self._end, left, "upscale", counted=self.count_tile))

    def read(self) -> None:
        """Read nothing, because the upscaler was loaded to know the tiles."""

    def count_tile(self, seconds: float) -> None:
        """Report that a tile is finished, and learn from its seconds."""
        self.model.cost.observe_turn(self.upscaler.name, seconds)
        self.done += 1
        ticket = self.ticket
        ticket.progress = Progress("drawing", self.done, self.tiles, 0, self.left_s)
        if ticket.on_step is not None:
            ticket.on_step(ticket.progress)

    def _end(self, larger: Image) -> None:
        begun = self.clock["taken"]
        timings = {"queue": begun - self.ticket.submitted, "upscale": time.monotonic() - begun}
        image, units = GeneratedImage(larger, None), larger.width * larger.height / COST_UNIT
        settle(self.ticket, Result((image,), self.parameters, timings, units))
        self.release()

    def release(self) -> None:
        self.image = None


def plan(model: LoadedModel, ticket: Ticket, inputs: Inputs) -> Enlarge:
    """Decide everything about a request.

    Raises:
        InvalidInput: (400, 404, 413) naming the field that cannot be served.
    """
    parameters, image = ticket.parameters, inputs.image
    assert isinstance(parameters, Upscale) and image is not None
    upscaler = model.upscalers.get(parameters.upscaler, ("upscaler",))
    scale = parameters.scale or float(upscaler.scale)
    size = round(image.height * scale), round(image.width * scale)
    _check(size, model.settings.max_pixels)
    tiles = upscaler.turns((image.height, image.width))
    seconds = model.cost.turns(upscaler.name, tiles)
    expires = ticket.submitted + model.allowed_s(parameters)
    return Enlarge(
        ticket=ticket,
        model=model,
        parameters=parameters.model_copy(update={"scale": scale}),
        image=image,
        upscaler=upscaler,
        size=size,
        tiles=tiles,
        seconds=seconds,
        urgency=urgency(ticket, seconds, expires),
        expires=expires,
    )


def _check(size: tuple[int, int], max_pixels: int) -> None:
    height, width = size
    if height * width > max_pixels:
        raise PayloadTooLarge(
            f"scale makes {height} x {width}, over the limit of {max_pixels} pixels",
            loc=("scale",),
        )
    if max(size) > MAX_SIDE:
        raise InvalidInput(
            f"scale makes {height} x {width}, and no side may be over {MAX_SIDE}", loc=("scale",)
        )
