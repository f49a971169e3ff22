"""These types go into the engine and come out; hosts use them, so they import no torch."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from runnables.errors import Cancelled

if TYPE_CHECKING:
    from PIL.Image import Image

    from runnables.parameters import AnyParameters

State = Literal["queued", "drawing", "decoding", "done", "failed", "cancelled"]
FinishReason = Literal["success", "content_filtered"]
Cache = Literal["hit", "joined"]
OnStep = Callable[["Progress"], None]


@dataclass(frozen=True)
class Inputs:
    """Inputs are the pictures of a request, all RGB except the mask.

    Attributes:
        image: what is generated again or enlarged.
        mask: grey; white is repainted.
        controls: in the order of the parameters' `controlnets`.
    """

    image: Image | None = None
    mask: Image | None = None
    controls: tuple[Image, ...] = ()


#: the inputs of a request from text alone
NOTHING = Inputs()


class Caller(NamedTuple):
    """A caller shares the machine with others.

    Attributes:
        name: an API key's hash, or an address; "" for all who have none.
        weight: the caller's share of the machine, relative to the other callers' weights.
    """

    name: str = ""
    weight: float = 1.0


ANYBODY = Caller()


class Load(NamedTuple):
    """Load says how busy an engine is.

    Attributes:
        waiting: requests in the queue.
        active: images being generated.
        batch_share: the share of the usual batch size that memory allows; less than 1 after an
            out-of-memory error.
        pending_s: estimated seconds of work that is accepted and not finished.
    """

    waiting: int = 0
    active: int = 0
    batch_share: float = 1.0
    pending_s: float = 0.0


@dataclass(frozen=True)
class Progress:
    """Progress says how far a request is.

    Attributes:
        step, steps: denoiser calls done, of how many.
        position: requests before this one in the queue.
        eta_s: estimated seconds until it is generated.
        preview: its first image as it looks after `previewed` steps (RGB, about as many pixels as
            latents), where the ticket requested it then; a GPU makes it beside the next steps.
    """

    state: State
    step: int
    steps: int
    position: int = 0
    eta_s: float | None = None
    preview: Image | None = None
    previewed: int = 0


@dataclass(frozen=True)
class GeneratedImage:
    """This is one finished image (RGB).

    Attributes:
        seed: None where no seed was used.
        hint: what the caller should know about it, of a model that cannot draw everything.
    """

    image: Image
    seed: int | None
    finish_reason: FinishReason = "success"
    hint: str | None = None


@dataclass(frozen=True)
class Result:
    """A result has all images of a request, its complete parameters, and seconds by stage.

    Attributes:
        timings: by stage, in this order: queue, encode, denoise, decode.
        cost_units: denoiser rows run, in units of 64x64 latents (512x512 pixels); an enlargement
            counts as one row of its larger picture.
        cache: where nothing was generated for this request: `hit` is an earlier result, `joined`
            that of an equal request which was under way.
    """

    images: tuple[GeneratedImage, ...]
    parameters: AnyParameters
    timings: Mapping[str, float]
    cost_units: float = 0.0
    cache: Cache | None = None


@dataclass(frozen=True)
class Plan:
    """A plan says what a request would take.

    Attributes:
        parameters: with nothing left open, the seed included.
        steps: denoiser calls of one image.
        seconds: what it adds to a machine that is already busy, estimated.
        model: the number of the loaded model, which no other has had; None while none is.
    """

    parameters: AnyParameters
    steps: int
    seconds: float
    model: int | None = None


@dataclass(eq=False)
class Ticket:
    """A ticket is a submitted request: wait on `future`, read `progress`, or `cancel`.

    `future` ends exactly once: with a Result or with a StableDiffusionError.

    Attributes:
        on_step: called with the Progress after every step, on the engine's thread.
        preview_every: steps between previews; 0: none.
        caller: on whose behalf it is served.
    """

    parameters: AnyParameters
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    future: Future[Result] = field(default_factory=Future)
    progress: Progress = Progress("queued", 0, 0)
    submitted: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    on_step: OnStep | None = None
    preview_every: int = 0
    caller: Caller = ANYBODY

    def cancel(self) -> None:
        """Ask to stop: the rows are freed before the next step. Further calls do nothing."""
        self.cancelled = True


def settle(ticket: Ticket, outcome: Result | BaseException) -> None:
    """End the ticket's future, once; of two threads that do, one succeeds."""
    steps = ticket.progress.steps
    if ticket.future.done():
        return
    with suppress(InvalidStateError):
        if isinstance(outcome, Result):
            ticket.progress = Progress("done", steps, steps)
            ticket.future.set_result(outcome)
        else:
            state: State = "cancelled" if isinstance(outcome, Cancelled) else "failed"
            ticket.progress = Progress(state, ticket.progress.step, steps)
            ticket.future.set_exception(outcome)
