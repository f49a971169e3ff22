"""The step loop lets requests join before a step, share it, and leave after it.

One thread owns the models. It alternates between admitting (text encode, initial latents), one
denoiser call for the rows that `scheduling.Turns` picks, and decoding what has finished; making
images of the pixels happens in other threads. Every accepted ticket's future ends exactly once:
here, or by the watch (`watch.py`) where this thread fails.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from runnables.accelerators.base import Accelerator
from runnables.engine.admission import plan
from runnables.engine.batch import Batch, signature
from runnables.engine.denoise import Denoise
from runnables.engine.finish import decode, deliver, flagged, readable, settle, to_image
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.memory import Headroom
from runnables.engine.model_pool import ModelPool, Waiting
from runnables.engine.pace import Launch, Pace
from runnables.engine.prepare import Preparer
from runnables.engine.row import Row
from runnables.engine.scheduling import (
    AHEAD,
    Busy,
    Candidate,
    Forecast,
    Queue,
    Task,
    Tasks,
    Turns,
    has_room,
)
from runnables.engine.watch import Watch, computes, spared
from runnables.engine.work import Work
from runnables.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    NotReady,
    StableDiffusionError,
)
from runnables.ticket import Inputs, Plan, Progress, Ticket

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

logger = logging.getLogger(__name__)

IDLE_S = 0.5  # how often an idle engine looks for cancelled and expired requests
STOPPED = "the service stopped before this request was finished"
CLOSE_S = 30.0  # how long a stop waits for the step under way
IN_VAIN = 3  # turns in a row that fail without any request to blame: the thread gives up


class Engine:
    """The engine serves tickets.

    It calls `observe(stage, seconds, rows)` after every piece of work.
    """

    def __init__(
        self,
        pool: ModelPool,
        accelerator: Accelerator,
        *,
        observe: Callable[[str, float, int], None] = lambda stage, seconds, rows: None,
    ) -> None:
        self._pool = pool
        self._settings = pool.first.settings
        self._accelerator = accelerator
        self._observe = observe
        self._turns: Turns[Row] = Turns(self._limit, _seconds)
        self._forecast: Forecast[Row] = Forecast()
        self._queue = Queue(self._settings.max_queue_s, self._busy, self._turns.served)
        pool.wake = self._queue.wake
        self._preparer = Preparer(self._settings.prompt_cache)
        pool.evicted = self._forget
        self._rows: list[Row] = []
        self._tasks = Tasks(self._turns.served)
        self._blamed: list[Work] = []  # whose work is under way: these end with what it raises
        self._in_vain = 0
        self._suspect = False  # whether the device has to be checked
        self._batch: Batch | None = None
        self.headroom = Headroom()
        self._pace = Pace(partial(self._measured, "denoise"))
        self._images = ThreadPoolExecutor(2, thread_name_prefix="images")
        self._stopped = False
        self._watch = Watch(
            self._run,
            forget=self._drop_all,
            safe=lambda: computes(accelerator.device),
            over=self._over,
            stall_s=self._settings.stall_s,
        )

    # -- any thread -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve."""
        self._watch.start()

    def submit(self, ticket: Ticket, inputs: Inputs) -> None:
        """Plan and admit a request, or let it wait for its model; the ticket's future ends later.

        Raises:
            InvalidInput, OverCapacity, NotReady: refused, the future is left alone.
        """
        if not self.alive:
            raise EngineFailed("the engine has failed, and the service has to be restarted")
        model = self._pool.enter(ticket.parameters.model)
        if model is None:
            self._wait_for_model(ticket, inputs)
            return
        try:
            work = plan(model, ticket, inputs)
            work.read()
            self._begin(ticket)
            self._queue.admit(work)
        except BaseException:
            self._watch.refuse(ticket)
            self._pool.leave(model.name)
            raise
        self._leave_at_end(ticket, model.name)

    def _leave_at_end(self, ticket: Ticket, model: str) -> None:
        ticket.future.add_done_callback(lambda _: self._pool.leave(model))

    def _begin(self, ticket: Ticket) -> None:
        """Mark the ticket as accepted: from here on only the engine ends its future."""
        ticket.future.set_running_or_notify_cancel()
        self._watch.accept(ticket)

    def _wait_for_model(self, ticket: Ticket, inputs: Inputs) -> None:
        if self._queue.closed:
            raise NotReady("the service is stopping and takes no new requests")
        self._begin(ticket)
        try:
            self._pool.wait_for(ticket, inputs)
        except BaseException:
            self._watch.refuse(ticket)
            raise

    def plan(self, ticket: Ticket, inputs: Inputs) -> Plan:
        """Return what `submit` would do; load no model, LoRA or ControlNet (but a named upscaler).

        Of a model that is not loaded nothing is known yet: the parameters stay as they are.

        Raises:
            InvalidInput: as `submit`, but for what only loading shows.
        """
        model = self._pool.enter(ticket.parameters.model)
        if model is None:
            return Plan(ticket.parameters, 0, 0.0)
        try:
            work = plan(model, ticket, inputs)
            return Plan(work.parameters, work.steps, work.share_s)
        finally:
            self._pool.leave(model.name)

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
        self._stopped = True
        self._watch.close(CLOSE_S, NotReady(STOPPED))
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
        return len(self._rows) + len(self._tasks)

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

    # -- the engine's thread ----------------------------------------------------------------

    def _run(self) -> None:
        with self._accelerator.session():
            while not self._stopped:
                self._blamed = []
                try:
                    self._watch.beat()
                    self._drop_ended()
                    self._change_models()
                    self._admit()
                    self._turn()
                    self._in_vain = 0
                except Exception as error:
                    self._survive(error)
                self._check_device()
            self._abandon()

    def _survive(self, error: Exception) -> None:
        """End the requests whose work has raised an error; the others go on."""
        blamed, self._blamed, self._batch = self._blamed, [], None
        for work in blamed:
            self._fail(work, error)
        self._in_vain = 0 if blamed else self._in_vain + 1
        if not blamed:
            logger.error("the engine failed outside of any request", exc_info=error)
        if self._in_vain >= IN_VAIN:
            raise error

    def _check_device(self) -> None:
        """After an unexpected error, look whether the device is lost; then the thread gives up."""
        suspect, self._suspect = self._suspect, False
        if suspect and not computes(self._accelerator.device):
            raise EngineFailed(f"the device {self._accelerator.device} is lost")

    def _drop_all(self) -> None:
        """Drop all work, before the thread is started again: every request has ended."""
        lost = [*_works(self._rows, self._tasks), *self._blamed]
        for work in [*lost, *self._queue.discard(lambda work: True)]:
            work.release()
        self._pool.discard(lambda ticket: True)
        self._preparer = Preparer(self._settings.prompt_cache)
        self._rows, self._blamed, self._batch = [], [], None
        self._tasks = Tasks(self._turns.served)
        self._in_vain, self._suspect = 0, False

    def _turn(self) -> None:
        """Run a step or a tile of a task; where there is neither, wait for requests."""
        self._accelerator.before_step()
        started = time.perf_counter()
        self._blamed = []
        if task := self._tasks.due(steps_wait=bool(self._rows)):
            self._run_task(task)
            self._tasks.took(seconds := time.perf_counter() - started)
            self._turns.charge(task.work.ticket.caller, seconds)
        elif self._rows:
            self._take_steps()
            self._tasks.stepped(time.perf_counter() - started)
        else:
            self._batch = None  # its rows hold their finished latents
            self._queue.wait(IDLE_S)

    def _take_steps(self) -> None:
        """Run a step of the rows whose turn it is, and count what that took, decoding included."""
        candidates = [_candidate(row) for row in self._rows]
        chosen, started = self._turns.choose(candidates), time.perf_counter()
        self._step([one.row for one in chosen])
        self._turns.took(chosen, candidates, time.perf_counter() - started)

    def _change_models(self) -> None:
        """Let models come and go, and admit the requests that waited for one."""
        if self._pool.expecting:
            self._batch = None  # it may hold the one that has to go
        self._blamed = []
        for waiting, outcome in self._pool.turn():
            if isinstance(outcome, StableDiffusionError):
                settle(waiting.ticket, outcome)
            else:
                self._admit_waiting(waiting, outcome)

    def _forget(self, model: LoadedModel) -> None:
        """Release what is kept of a model that is evicted."""
        self._batch = None
        for family in filter(None, (model.base, model.refiner)):
            self._preparer.forget(family)

    def _admit_waiting(self, waiting: Waiting, model: LoadedModel) -> None:
        """Admit a request that waited for its model; errors end its future."""
        ticket = waiting.ticket
        self._leave_at_end(ticket, model.name)
        try:
            work = plan(model, ticket, waiting.inputs)
            work.read()
            self._queue.admit(work)
        except Exception as error:
            settle(ticket, readable(error, self._accelerator))

    def _admit(self) -> None:
        """Prepare waiting requests while there is room, their prompts in one text encode."""
        taken: list[Denoise] = []
        while self._has_room(taken) and (work := self._queue.take()):
            try:
                work.begin(taken, self._tasks)
            except Exception as error:
                self._fail(work, error)
            self._blamed = [*taken]
        started = time.perf_counter()
        for prepared, rows in self._preparer.prepare(taken):
            if isinstance(rows, BaseException):
                self._fail(prepared, rows)
            else:
                self._rows += rows
            self._blamed.remove(prepared)
        if taken:
            seconds = time.perf_counter() - started
            self._turns.delayed(seconds)
            self._measured("encode", seconds, len(taken))

    def _has_room(self, taken: Sequence[Work]) -> bool:
        held = sum(task.held for task in self._tasks)
        active = [_candidate(row) for row in self._rows]
        return has_room(active, held, taken, self._queue.first, self._accelerator.row_limit)

    def _step(self, rows: list[Row]) -> None:
        """Run one denoiser call; when it fails, retry each row alone, so that only one ends."""
        begun = self._accelerator.mark()
        works = {row.work: None for row in rows}
        self._blamed = [*works]
        calls, load = sum(row.denoiser_rows for row in rows), sum(row.load for row in rows)
        model, area = rows[0].work.model, rows[0].key.area
        self._watch.beat(model.cost.step(load, area))
        try:
            batch = self._stacked(rows)
            done = batch.step()
        except Exception as error:
            self._batch = None
            self._recover(error, rows)
            return
        ended = self._accelerator.mark()
        self._pace.launched(Launch(begun, ended, model.cost, calls, load, area))
        self.headroom.succeeded()
        candidates = [_candidate(row) for row in self._rows]
        for work in works:
            with spared("reporting progress"):
                self._report(work, batch, candidates)
        if done:
            self._finish(done)

    def _measured(self, stage: str, seconds: float, rows: int) -> None:
        with spared("measuring"):
            self._observe(stage, seconds, rows)

    def _stacked(self, rows: list[Row]) -> Batch:
        if self._batch is None or self._batch.signature != signature(rows):
            self._batch = Batch(rows, self._accelerator)
        return self._batch

    def _recover(self, error: Exception, rows: list[Row]) -> None:
        if self._accelerator.is_out_of_memory(error):
            self._accelerator.free_memory()
            self.headroom.exhausted()
            logger.warning("out of memory at %d rows: smaller batches for a while", len(rows))
        if len(rows) == 1:
            self._fail(rows[0].work, error)
            return
        for row in rows:
            if row in self._rows:  # an earlier row of the same request may have ended it
                self._step([row])

    def _finish(self, done: list[Row]) -> None:
        """Decode denoised rows together, and end the requests that are complete."""
        self._blamed = list({row.work: None for row in done})
        for row in done:
            self._rows.remove(row)
        if last := [row for row in done if row.second_pass is None]:
            self._decode(last)
        self._enlarge([row for row in done if row not in last])

    def _enlarge(self, rows: list[Row]) -> None:
        """Begin the second pass of rows that have ended their first, or the task before it."""
        pictured = [row for row in rows if row.second_pass and row.second_pass.upscaler]
        started = time.perf_counter()
        for row, pixels in decode(pictured, self._accelerator):
            self._begin_second(row, pixels)
        if pictured:
            self._measured("decode", time.perf_counter() - started, len(pictured))
        for row in rows:
            if row not in pictured:
                self._begin_second(row, None)

    def _begin_second(self, row: Row, pixels: Tensor | Exception | None) -> None:
        """Begin the second pass, with the decoded picture where the pass is made of that."""
        second, work = row.second_pass, row.work
        if second is None or work.ticket.future.done():
            return
        try:
            if isinstance(pixels, Exception):
                raise pixels
            if pixels is None:
                self._continue(row, second.from_latents(row.latents, row.start.generator))
                return
            tiles = second.from_picture(to_image(pixels), row.start.generator)
            name = second.upscaler.name if second.upscaler else ""
            left = partial(_share_of, row)
            then = partial(self._continue, row)
            self._tasks.add(Task(work, tiles, then, name, left, held=row.load))
        except Exception as error:
            self._fail(work, error)

    def _continue(self, row: Row, sample: Tensor) -> None:
        row.begin_next(sample)
        self._rows.append(row)

    def _decode(self, done: list[Row]) -> None:
        started = time.perf_counter()
        model = done[0].work.model  # rows of one call are of one model
        for row, pixels in decode(done, self._accelerator):
            work = row.work
            if work.ticket.future.done():
                continue
            if isinstance(pixels, BaseException):
                self._fail(work, pixels)
                continue
            work.finished[row.seed] = pixels
            if len(work.finished) == len(work.seeds):
                try:
                    self._end(work, time.perf_counter() - started)
                except Exception as error:  # the safety checker's: nothing goes out unchecked
                    self._fail(work, error)
        seconds = time.perf_counter() - started
        with spared("measuring a decode"):
            model.cost.observe_decode(len(done), done[0].key.area, seconds)
        self._measured("decode", seconds, len(done))

    # -- tasks ------------------------------------------------------------------------------

    def _run_task(self, task: Task) -> None:
        """Run the task's next tile; a failure ends its request and no other."""
        started, work = time.perf_counter(), task.work
        self._blamed = [work]
        self._watch.beat(work.model.cost.turns(task.name, 1))
        try:
            next(task.tiles)
            self._accelerator.synchronize()
        except StopIteration as end:
            self._tasks.drop(task)
            task.then(end.value)
        except Exception as error:
            if self._accelerator.is_out_of_memory(error):
                self._accelerator.free_memory()
            self._fail(work, error)
        else:
            work.model.cost.observe_turn(task.name, time.perf_counter() - started)
            with spared("reporting progress"):
                task.counted()
        self._measured("upscale", time.perf_counter() - started, 1)

    # -- how requests end -------------------------------------------------------------------

    def _end(self, work: Denoise, decode_s: float) -> None:
        """Pass a request whose images are all decoded to the image threads."""
        clock = work.clock
        self._forecast.ended(work)
        objections = self._flagged(work)
        timings = {
            "queue": clock["taken"] - work.ticket.submitted,
            "encode": clock["prepared"] - clock["taken"],
            "denoise": time.monotonic() - decode_s - clock["prepared"],
            "decode": decode_s,
        }
        work.ticket.progress = Progress("decoding", work.steps, work.steps)
        self._images.submit(deliver, work, timings, objections, self._settings.safety)

    def _flagged(self, work: Denoise) -> set[int]:
        started = time.perf_counter()
        flags = flagged(work)
        if flags is not None:
            self._measured("safety", time.perf_counter() - started, len(work.finished))
        return flags or set()

    def _drop_ended(self) -> None:
        now = time.monotonic()
        for ticket in self._pool.discard(lambda ticket: self._is_over(ticket, now)):
            settle(ticket, self._why_ended(ticket))

        def ended(work: Work) -> bool:
            ticket = work.ticket  # the watch may have ended it
            return ticket.cancelled or now > work.expires or ticket.future.done()

        active = filter(ended, _works(self._rows, self._tasks))
        for work in [*self._queue.discard(ended), *active]:
            self._fail(work, self._why_ended(work.ticket))

    def _is_over(self, ticket: Ticket, now: float) -> bool:
        allowed = self._pool.first.allowed_s(ticket.parameters)
        return ticket.cancelled or now > ticket.submitted + allowed

    def _over(self, ticket: Ticket) -> StableDiffusionError | None:
        """Return what a ticket fails with, if its time is over; for the watch."""
        return self._why_ended(ticket) if self._is_over(ticket, time.monotonic()) else None

    def _why_ended(self, ticket: Ticket) -> StableDiffusionError:
        if ticket.cancelled:
            return Cancelled("the request was cancelled")
        allowed = self._pool.first.allowed_s(ticket.parameters)
        return DeadlineExceeded(f"not finished within {allowed:.0f} s", loc=("deadline_s",))

    def _fail(self, work: Work, error: BaseException) -> None:
        """End a request with an error, and free its rows."""
        self._suspect |= not isinstance(error, StableDiffusionError)
        self._tasks.drop_all(work)
        self._rows = [row for row in self._rows if row.work is not work]
        settle(work.ticket, readable(error, self._accelerator))
        work.release()

    def _abandon(self) -> None:
        for ticket in self._pool.discard(lambda ticket: True):
            settle(ticket, NotReady(STOPPED))
        while work := self._queue.take():
            self._fail(work, NotReady(STOPPED))
        for left in _works(self._rows, self._tasks):
            self._fail(left, NotReady(STOPPED))

    # -- estimates and progress -------------------------------------------------------------

    def _row_limit(self, model: LoadedModel, area: int) -> float:
        return min(self._accelerator.row_limit(area), model.memory.rows(area))

    def _limit(self, one: Candidate[Row]) -> int:
        """Return the denoiser rows that a call with this row may hold, at least one image's."""
        fits = self._row_limit(one.row.work.model, one.key.area)
        return max(2, int(fits * self.headroom.share))

    def _busy(self) -> list[Busy]:
        """Return the work that is left in the rows that take steps, and in tasks."""
        left: list[tuple[Work, float]] = [(row.work, _share_of(row)) for row in list(self._rows)]
        left += [(task.work, task.left_s()) for task in self._tasks]
        return [Busy(work.ticket.caller, work.urgency, seconds) for work, seconds in left]

    def _report(self, work: Denoise, batch: Batch, candidates: Sequence[Candidate[Row]]) -> None:
        rows = [row for row in self._rows if row.work is work]
        step = min(row.done for row in rows)
        last = max((one for one in candidates if one.work is work), key=lambda one: one.calls)
        eta = self._forecast.seconds(last, candidates)
        ticket = work.ticket
        every = ticket.preview_every  # read once: others may change it
        preview = self._preview(rows[0], batch, every) if every else None
        ticket.progress = Progress("drawing", step, work.steps, 0, eta, preview)
        if ticket.on_step is not None:
            ticket.on_step(ticket.progress)

    def _preview(self, row: Row, batch: Batch, every: int) -> Image | None:
        """Report a preview at every n-th step, except after the last step of a stage."""
        if row.step in (0, row.steps) or row.done % every or row not in batch.rows:
            return None
        try:
            previews = (one.preview(row, batch.output(row)) for one in row.work.model.extensions)
            return next((preview for preview in previews if preview is not None), None)
        except Exception:  # a preview must never cost the image
            logger.exception("a preview could not be made")
            return None


def _works(rows: Sequence[Row], tasks: Tasks) -> list[Work]:
    """Return the requests that are being served."""
    return list(dict.fromkeys([*(row.work for row in rows), *(task.work for task in tasks)]))


def _share_of(row: Row) -> float:
    """Return the seconds that the rest of a row takes on a machine that is busy already."""
    return row.work.model.cost.share(row.remaining, row.work.steps - row.done)


def _seconds(one: Candidate[Row], load: float) -> float:
    """Return the estimated seconds of a call with this row that holds so much load."""
    return one.row.work.model.cost.step(load, one.key.area)


def _candidate(row: Row) -> Candidate[Row]:
    work = row.work
    calls, cost = work.steps - row.done, work.model.cost
    left_s = cost.left(row.remaining, calls)
    added_s = left_s - calls * cost.overhead
    return Candidate(row, work, row.key, row.load, calls, left_s, added_s, fresh=row.done == 0)
