"""Requests that only enlarge a picture: planned and admitted as drawings are, run as errands."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runnables.engine.plan import PATIENCE, Planner
from runnables.errors import InvalidInput, PayloadTooLarge
from runnables.parameters import Upscale
from runnables.ticket import Drawn, Inputs, Progress, Result, Ticket
from runnables.upscalers.upscaler import Turns, Upscaler

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 16383  # what WebP holds


@dataclass(eq=False)
class UpscaleRequest:
    """A ticket with everything decided; the attributes are those of `plan.Request`.

    Attributes:
        size: (height, width) to come.
        steps: turns of its errand; `done` of them were run.
    """

    ticket: Ticket
    planner: Planner
    parameters: Upscale
    image: Image | None
    upscaler: Upscaler
    size: tuple[int, int]
    steps: int
    cost: float
    urgency: float
    expires: float
    done: int = 0
    clock: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Turns to come."""
        return self.steps - self.done

    @property
    def left_s(self) -> float:
        """Estimated seconds of them."""
        return self.planner.cost.turns(self.upscaler.name, self.left)

    def count_turn(self) -> None:
        """A turn was run: tell."""
        self.done += 1
        eta, ticket = self.left_s, self.ticket
        ticket.progress = Progress("drawing", self.done, self.steps, 0, eta)
        if ticket.on_step is not None:
            ticket.on_step(ticket.progress)

    def turns(self) -> Turns:
        """The errand."""
        assert self.image is not None
        return self.upscaler.enlarge(self.image, self.size)

    def result(self, larger: Image) -> Result:
        """What its future ends with."""
        begun = self.clock["taken"]
        timings = {"queue": begun - self.ticket.submitted, "upscale": time.monotonic() - begun}
        return Result((Drawn(larger, None),), self.parameters, timings)

    def release(self) -> None:
        """Let go of the picture at the end."""
        self.image = None


def plan(planner: Planner, ticket: Ticket, inputs: Inputs) -> UpscaleRequest:
    """Raises InvalidInput (400, 404, 413) naming the field that cannot be served."""
    parameters, image = ticket.parameters, inputs.image
    assert isinstance(parameters, Upscale) and image is not None
    settings = planner.settings
    upscaler = planner.upscalers.get(parameters.upscaler, ("upscaler",))
    scale = parameters.scale or float(upscaler.scale)
    size = round(image.height * scale), round(image.width * scale)
    _check(size, settings.max_pixels)
    turns = upscaler.turns((image.height, image.width))
    seconds = planner.cost.turns(upscaler.name, turns)
    expires = ticket.submitted + (parameters.deadline_s or settings.request_timeout_s)
    wait = PATIENCE[parameters.priority] * seconds
    return UpscaleRequest(
        ticket=ticket,
        planner=planner,
        parameters=parameters.model_copy(update={"scale": scale}),
        image=image,
        upscaler=upscaler,
        size=size,
        steps=turns,
        cost=seconds,
        urgency=min(ticket.submitted + wait, expires - seconds),
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
