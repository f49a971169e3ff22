"""What goes into the engine and what comes out. No torch here: hosts use these types."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

    from runnables.parameters import AnyParameters

State = Literal["queued", "drawing", "decoding", "done", "failed", "cancelled"]
FinishReason = Literal["success", "content_filtered"]
OnStep = Callable[["Progress"], None]


@dataclass(frozen=True)
class Inputs:
    """The pictures of a request, all RGB but the mask.

    Attributes:
        image: what is redrawn or enlarged.
        mask: grey; white is redrawn.
        controls: in the order of the parameters' `controlnets`.
    """

    image: Image | None = None
    mask: Image | None = None
    controls: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Where a request is.

    Attributes:
        step, steps: UNet calls done, of how many.
        position: requests before this one in the queue.
        eta_s: estimated seconds until it is drawn.
        preview: its first image as it looks now (RGB, about as many pixels as latents), where the
            ticket asked for it at this step.
    """

    state: State
    step: int
    steps: int
    position: int = 0
    eta_s: float | None = None
    preview: Image | None = None


@dataclass(frozen=True)
class GeneratedImage:
    """One finished image (RGB); `seed` is None where none was drawn with."""

    image: Image
    seed: int | None
    finish_reason: FinishReason = "success"


@dataclass(frozen=True)
class Result:
    """All images of a request, its parameters with nothing left open, and seconds by stage.

    Attributes:
        timings: by stage, in this order: queue, encode, denoise, decode.
        cost_units: UNet rows run, in units of 64x64 latents (512x512 pixels).
    """

    images: tuple[GeneratedImage, ...]
    parameters: AnyParameters
    timings: Mapping[str, float]
    cost_units: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What a request would be.

    Attributes:
        parameters: with nothing left open, the seed included.
        steps: UNet calls of one image.
        seconds: what it adds to a machine that is already busy, estimated.
    """

    parameters: AnyParameters
    steps: int
    seconds: float


@dataclass(eq=False)
class Ticket:
    """A submitted request: wait on `future`, read `progress`, or `cancel`.

    `future` ends exactly once: with a Result or with a StableDiffusionError.

    Attributes:
        on_step: called with the Progress after every step, on the engine's thread.
        preview_every: steps between previews; 0: none.
    """

    parameters: AnyParameters
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    future: Future[Result] = field(default_factory=Future)
    progress: Progress = Progress("queued", 0, 0)
    submitted: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    on_step: OnStep | None = None
    preview_every: int = 0

    def cancel(self) -> None:
        """Ask to stop: the rows are freed before the next step. Idempotent."""
        self.cancelled = True
