"""Work is what the engine does for a request: denoise images, or enlarge one."""

from __future__ import annotations

from typing import Any, Protocol

from runnables.engine.loaded_model import LoadedModel
from runnables.ticket import Ticket


class Work(Protocol):
    """Work is a ticket with everything decided; `Denoise` and `Enlarge` are its two kinds.

    Attributes:
        model: the model that does it.
        steps: denoiser calls of one image, or tiles; what the progress counts.
        seconds: estimated, alone on the machine.
        urgency: the time (time.monotonic) by which it should be served; smaller goes first.
        expires: the time at which it fails with DeadlineExceeded.
        rows: denoiser rows that it will hold, ControlNets counted as parts of one.
        area: latent positions of one of them.
        clock: when it was taken from the queue and prepared, by `taken` and `prepared`.
    """

    ticket: Ticket
    model: LoadedModel
    parameters: Any
    seconds: float
    urgency: float
    expires: float
    clock: dict[str, float]

    @property
    def steps(self) -> int: ...
    @property
    def rows_to_come(self) -> float: ...
    @property
    def area(self) -> int: ...

    @property
    def share_s(self) -> float:
        """Return the seconds that it adds to a machine that is busy already."""
        ...

    def read(self) -> None:
        """Read what it needs from disk, in the caller's thread, before it is admitted.

        Raises:
            InvalidInput: something that it names is damaged, or for another model.
        """
        ...

    def begin(self, prepare: Any, tasks: Any) -> None:
        """Have rows made by `prepare(work)`, or add to the `tasks` (`scheduling.Tasks`)."""
        ...

    def release(self) -> None:
        """Release pictures and tensors at the end."""
        ...
