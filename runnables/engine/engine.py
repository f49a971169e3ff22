"""The engine puts its parts together, and is what the rest of the service sees of them.

The step loop lets requests join before a step, share it, and leave after it. One thread (`loop.py`)
owns the models. It alternates between admitting (text encode, initial latents), one denoiser call
or of the VAE for the rows that `scheduling.Turns` picks (`steps.py`), and what follows a decode
(`finish.py`); making images of the pixels happens in other threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from runnables.accelerators.base import Accelerator
from runnables.engine.active import Active, coming, seconds_of
from runnables.engine.admission import Admission
from runnables.engine.beside import Beside
from runnables.engine.decode import chunk_size
from runnables.engine.finish import Finish
from runnables.engine.forecast import COMING, Forecast
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.loop import STOPPED, Loop
from runnables.engine.memory import Headroom
from runnables.engine.model_pool import ModelPool
from runnables.engine.outcome import over
from runnables.engine.row import Row
from runnables.engine.scheduling import AHEAD, Candidate, Queue, Turns, has_room
from runnables.engine.steps import Steps
from runnables.engine.watch import Watch, spared
from runnables.errors import EngineFailed, NotReady, StableDiffusionError
from runnables.ticket import Caller, Inputs, Plan, Ticket

CLOSE_S = 30.0  # how long a stop waits for the step under way


class Engine:
    """The engine serves tickets; all its methods are for any thread.

    It calls `observe(stage, seconds, rows)` after every piece of work.

    Args:
        clock: in seconds, of the same kind as a ticket's `submitted`.
    """

    def __init__(
        self,
        pool: ModelPool,
        accelerator: Accelerator,
        *,
        observe: Callable[[str, float, int], None] = lambda stage, seconds, rows: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._accelerator = accelerator
        self._observe = observe
        self._clock = clock
        self.headroom = Headroom()
        self._images = ThreadPoolExecutor(2, thread_name_prefix="images")
        settings = pool.first.settings
        turns = Turns[Row](
            self._limit,
            seconds_of,
            clock,
            lambda: self._active.callers(),
            mixes_sizes=accelerator.mixes_sizes,
        )
        self._turns = turns
        forecast: Forecast[Row] = Forecast(
            turns,
            seconds_of,
            clock,
            lambda served: coming(self._queue.ordered[:COMING], served),
            lambda rows, work: has_room(rows, self._active.tasks, work, accelerator.row_limit),
        )
        self._active = Active(accelerator, turns.served)
        self._queue = Queue(settings.max_queue_s, self._active.busy, turns.served, clock)
        pool.wake = self._queue.wake
        self._beside = Beside(accelerator, self._queue.wake)
        self._watch = Watch(
            lambda: self._loop.run(),
            forget=lambda: self._loop.drop_all(),
            safe=lambda: self._loop.computes(),
            over=self._over,
            stall_s=settings.stall_s,
            clock=clock,
        )
        self._admission = Admission(
            pool, self._queue, accelerator, accept=self._watch.accept, refuse=self._watch.refuse
        )
        self._finish = Finish(
            self._active,
            accelerator,
            self._beside,
            turns,
            forecast,
            settings.safety,
            self._images,
            beat=self._watch.beat,
            observe=self._measured,
            clock=clock,
        )
        self._steps = Steps(
            self._active,
            accelerator,
            turns,
            forecast,
            self.headroom,
            self._finish,
            self._beside,
            beat=self._watch.beat,
            observe=self._measured,
            clock=clock,
        )
        self._loop = Loop(
            pool,
            accelerator,
            self._queue,
            self._admission,
            self._active,
            self._steps,
            self._finish,
            turns,
            over=self._over,
            beat=self._watch.beat,
            observe=self._measured,
            clock=clock,
        )

    def start(self) -> None:
        """Begin to serve."""
        self._watch.start()

    def submit(self, ticket: Ticket, inputs: Inputs) -> None:
        """Accept a request, as `Admission.submit`; the ticket's future ends later.

        Raises:
            InvalidInput, OverCapacity, NotReady, EngineFailed: refused, the future is left alone.
        """
        if not self.alive:
            raise EngineFailed("the engine has failed, and the service has to be restarted")
        self._admission.submit(ticket, inputs)

    def plan(self, ticket: Ticket, inputs: Inputs) -> Plan:
        """Return what `submit` would do, as `Admission.plan`."""
        return self._admission.plan(ticket, inputs)

    def watch(self, ticket: Ticket) -> None:
        """Keep the deadline of a ticket that waits for another one's result."""
        self._watch.accept(ticket)

    def served(self, caller: Caller) -> float:
        """Return the caller's virtual time, as `Turns.served`."""
        return self._turns.served(caller)

    def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and finish the accepted ones.

        Return whether all have ended in time.
        """
        self._queue.close()
        end = time.monotonic() + timeout_s
        while self._watch.open and time.monotonic() < end:
            time.sleep(0.02)
        return not self._watch.open

    def close(self) -> None:
        """Stop the thread; whatever is not finished ends with NotReady."""
        self._queue.close()
        self._loop.stopped = True
        self._watch.close(CLOSE_S, NotReady(STOPPED))
        self._beside.close()
        self._images.shutdown()
        self._pool.close()

    @property
    def accepting(self) -> bool:
        """Return whether the engine is running, and not draining."""
        return self._watch.alive and not self._queue.closed

    @property
    def alive(self) -> bool:
        """Return False once the engine's thread has died or stands still: only a restart helps."""
        return self._watch.alive

    @property
    def waiting(self) -> int:
        """Return the number of requests in the queue, or waiting for their model."""
        return len(self._queue) + self._pool.waiting

    @property
    def active(self) -> int:
        """Return the number of images being generated or enlarged."""
        return len(self._active)

    @property
    def pending_s(self) -> float:
        """Return the estimated seconds of work that is accepted and not finished."""
        return self._queue.pending_s

    @property
    def free_bytes(self) -> float:
        """Return the bytes that the device has left; infinite if unknown."""
        return self._accelerator.free_bytes()

    @property
    def capacity(self) -> int:
        """Return how many guided images of native size keep every step full."""
        model = self._pool.first
        traits = model.base.traits
        fits = self._row_limit(model, traits.area(traits.native_size))
        return max(1, AHEAD * int(fits) // 2)

    def _over(self, ticket: Ticket) -> StableDiffusionError | None:
        """Return what a ticket ends with, if its time is over."""
        return over(ticket, self._pool.first.allowed_s(ticket.parameters), self._clock())

    def _row_limit(self, model: LoadedModel, area: int) -> float:
        return min(self._accelerator.row_limit(area), model.memory.rows(area))

    def _limit(self, one: Candidate[Row]) -> int:
        """Return the denoiser rows that a call with this row may hold, at least one image's.

        Of a call that decodes return the images: while rows take steps, as many as the VAE decodes
        in the time of one, so that none waits longer for the next.
        """
        if one.key.decoding:
            return self._images_limit(one)
        fits = self._row_limit(one.row.work.model, one.key.area)
        return max(2, int(fits * self.headroom.share))

    def _images_limit(self, one: Candidate[Row]) -> int:
        row, area, cost = one.row, one.key.area, one.row.work.model.cost
        fits = chunk_size(row, area, self._accelerator)
        waiting = sum(other.load for other in self._active.rows if not other.denoised)
        if not waiting:
            return fits
        seconds = cost.step(min(waiting, self._row_limit(row.work.model, area)), area)
        return min(fits, max(1, int(seconds / cost.decode(1, area))))

    def _measured(self, stage: str, seconds: float, rows: int) -> None:
        with spared("measuring"):
            self._observe(stage, seconds, rows)
