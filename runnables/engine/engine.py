"""The step loop: requests join before a step, share it, and leave after it.

One thread owns the models. It alternates between admitting (text encode, initial latents), one
UNet call for the rows that `batcher.choose` picks, and decoding what has finished; making images of
the pixels happens in other threads. Every accepted ticket's future ends exactly once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from runnables.accelerators.base import Accelerator
from runnables.engine.batch import Batch, signature
from runnables.engine.batch_key import BatchKey
from runnables.engine.batcher import choose
from runnables.engine.decode import decode, to_image
from runnables.engine.ending import deliver, flagged, settle, told
from runnables.engine.model_pool import Parked, Shelf
from runnables.engine.plan import Planner, Request
from runnables.engine.prepare import Preparer
from runnables.engine.previews import Previewer
from runnables.engine.queue import Accepted, Queue
from runnables.engine.row import Row
from runnables.engine.tasks import Errand, Errands
from runnables.engine.upscale import UpscaleRequest
from runnables.engine.upscale import plan as plan_upscale
from runnables.errors import (
    Cancelled,
    DeadlineExceeded,
    NotReady,
    StableDiffusionError,
)
from runnables.parameters import Upscale
from runnables.ticket import Inputs, Plan, Progress, Ticket

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

logger = logging.getLogger(__name__)

IDLE_S = 0.5  # how often an idle engine looks for cancelled and expired requests
AHEAD = 2  # how many full batches of rows are prepared and kept in memory


class Engine:
    """Draws tickets. `observe(stage, seconds, rows)` is called for every piece of work done."""

    def __init__(
        self,
        shelf: Shelf,
        accelerator: Accelerator,
        *,
        previewer: Previewer | None = None,
        observe: Callable[[str, float, int], None] = lambda stage, seconds, rows: None,
    ) -> None:
        self._shelf = shelf
        self._settings = shelf.first.settings
        self._accelerator = accelerator
        self._observe = observe
        self._previewer = previewer or Previewer()
        self._queue = Queue(self._settings.max_queue_s, self._busy_s, self._share_s)
        shelf.wake = self._queue.wake
        self._preparer = Preparer(self._settings.prompt_cache)
        self._rows: list[Row] = []
        self._errands = Errands()
        self._open: set[str] = set()  # tickets that are accepted and have not ended
        self._batch: Batch | None = None
        self._shrink = 1.0  # lowered when memory runs out
        self._images = ThreadPoolExecutor(2, thread_name_prefix="images")
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._stopped = False

    # -- any thread -------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def submit(self, ticket: Ticket, inputs: Inputs) -> None:
        """Plan and admit, or wait for the model; the ticket's future ends later.

        Raises:
            InvalidInput, OverCapacity, NotReady: refused, the future is left alone.
        """
        planner = self._shelf.enter(ticket.parameters.model)
        if planner is None:
            self._park(ticket, inputs)
            return
        try:
            request = _planned(planner, ticket, inputs)
            self._begin(ticket)
            self._queue.admit(request)
        except BaseException:
            self._open.discard(ticket.id)
            self._shelf.leave(planner.name)
            raise
        self._leave_at_end(ticket, planner.name)

    def _leave_at_end(self, ticket: Ticket, model: str) -> None:
        ticket.future.add_done_callback(lambda _: self._shelf.leave(model))

    def _begin(self, ticket: Ticket) -> None:
        """From here on only the engine ends it."""
        ticket.future.set_running_or_notify_cancel()
        self._open.add(ticket.id)
        id = ticket.id  # not the ticket: its future would hold it for ever
        ticket.future.add_done_callback(lambda _: self._open.discard(id))

    def _park(self, ticket: Ticket, inputs: Inputs) -> None:
        if self._queue.closed:
            raise NotReady("the service is stopping and takes no new requests")
        self._begin(ticket)
        try:
            self._shelf.park(ticket, inputs)
        except StableDiffusionError:
            self._open.discard(ticket.id)
            raise

    def plan(self, ticket: Ticket, inputs: Inputs) -> Plan:
        """What `submit` would do. Raises InvalidInput as it does.

        Of a model that is not loaded nothing is known yet: the parameters stay as they are.
        """
        planner = self._shelf.enter(ticket.parameters.model)
        if planner is None:
            return Plan(ticket.parameters, 0, 0.0)
        try:
            request = _planned(planner, ticket, inputs)
            return Plan(request.parameters, request.steps, self._share_s(request))
        finally:
            self._shelf.leave(planner.name)

    def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and finish the accepted ones. True when all have ended in time."""
        self._queue.close()
        end = time.monotonic() + timeout_s
        while self._open and time.monotonic() < end:
            time.sleep(0.02)
        return not self._open

    def close(self) -> None:
        """Stop the thread; whatever is not finished ends with NotReady."""
        self._queue.close()
        self._stopped = True
        if self._thread.is_alive():
            self._thread.join()
        self._images.shutdown()
        self._shelf.close()

    @property
    def accepting(self) -> bool:
        """Running, and not draining."""
        return self._thread.is_alive() and not self._queue.closed

    @property
    def waiting(self) -> int:
        """Requests in the queue, or waiting for their model."""
        return len(self._queue) + self._shelf.waiting

    @property
    def active(self) -> int:
        """Images being drawn or enlarged."""
        return len(self._rows) + len(self._errands)

    @property
    def capacity(self) -> int:
        """Guided images of native size that keep every step full, the next ones prepared."""
        base, memory = self._shelf.first.base, self._shelf.first.memory
        height, width = base.native_size
        area = height * width // base.scale_factor**2
        fits = min(self._accelerator.row_limit(area), memory.rows(area))
        return max(1, AHEAD * int(fits) // 2)

    # -- the engine's thread ----------------------------------------------------------------

    def _run(self) -> None:
        with self._accelerator.session():
            while not self._stopped:
                self._drop_ended()
                self._change_models()
                self._admit()
                self._turn()
            self._abandon()

    def _turn(self) -> None:
        """A step, or a turn of an errand; where there is neither, wait for requests."""
        started = time.perf_counter()
        if errand := self._errands.due(drawing=bool(self._rows)):
            self._run_errand(errand)
            self._errands.took(time.perf_counter() - started)
        elif self._rows:
            self._step(choose(self._rows, self._limit))
            self._errands.drew(time.perf_counter() - started)
        else:
            self._batch = None  # its rows hold what they have drawn
            self._queue.wait(IDLE_S)

    def _change_models(self) -> None:
        """Let models come and go, and admit the requests that waited for one."""
        if self._shelf.expecting:
            self._batch = None  # it may hold the one that has to go
        for parked, outcome in self._shelf.turn():
            if isinstance(outcome, StableDiffusionError):
                settle(parked.ticket, outcome)
            else:
                self._unpark(parked, outcome)

    def _unpark(self, parked: Parked, planner: Planner) -> None:
        """As `submit`, but errors end the future."""
        ticket = parked.ticket
        self._leave_at_end(ticket, planner.name)
        try:
            self._queue.admit(planner.plan(ticket, parked.inputs))
        except Exception as error:
            settle(ticket, told(error, self._accelerator))

    def _admit(self) -> None:
        """Prepare waiting requests while there is room, their prompts in one text encode."""
        taken: list[Request] = []
        while self._has_room(taken) and (request := self._queue.take()):
            if isinstance(request, UpscaleRequest):
                self._begin_upscale(request)
            else:
                taken.append(request)
        started = time.perf_counter()
        for drawing, rows in self._preparer.prepare(taken):
            if isinstance(rows, BaseException):
                self._fail(drawing, rows)
                continue
            drawing.rows = rows
            self._rows += rows
        if taken:
            self._observe("encode", time.perf_counter() - started, len(taken))

    def _has_room(self, taken: Sequence[Request]) -> bool:
        """Room for another request: twice as much for one that is more urgent than some row."""
        rows = sum(row.load for row in [*self._rows, *self._errands.rows])
        rows += sum(len(request.seeds) * request.load for request in taken)
        areas = [row.key.area for row in self._rows[:1]] + [request.area for request in taken[:1]]
        room = AHEAD * self._accelerator.row_limit(max(areas, default=1))
        overtakes = any(self._queue.first_urgency < row.urgency for row in self._rows)
        return rows < room * (1 + overtakes)

    def _step(self, rows: list[Row]) -> None:
        """One UNet call; when it fails, its rows are retried alone, and only the bad one ends."""
        started = time.perf_counter()
        unet_rows, load = sum(row.unet_rows for row in rows), sum(row.load for row in rows)
        try:
            batch = self._stacked(rows)
            done = batch.step()
            self._accelerator.synchronize()
        except Exception as error:
            self._batch = None
            self._recover(error, rows)
            return
        seconds = time.perf_counter() - started
        rows[0].request.planner.cost.observe_step(load, rows[0].key.area, seconds)
        self._observe("denoise", seconds, unet_rows)
        for request in {id(row.request): row.request for row in rows}.values():
            self._report(request, batch)
        if done:
            self._finish(done)

    def _stacked(self, rows: list[Row]) -> Batch:
        if self._batch is None or self._batch.signature != signature(rows):
            self._batch = Batch(rows, self._accelerator)
        return self._batch

    def _recover(self, error: Exception, rows: list[Row]) -> None:
        if self._accelerator.is_out_of_memory(error):
            self._accelerator.free_memory()
            self._shrink = max(self._shrink / 2, 1 / 64)
            logger.warning("out of memory at %d rows: smaller batches from now on", len(rows))
        if len(rows) == 1:
            self._fail(rows[0].request, error)
            return
        for row in rows:
            if row in self._rows:  # an earlier row of the same request may have ended it
                self._step([row])

    def _finish(self, done: list[Row]) -> None:
        """Decode denoised rows together, and end the requests that are complete."""
        for row in done:
            self._rows.remove(row)
        if last := [row for row in done if row.second_pass is None]:
            self._decode(last)
        self._enlarge([row for row in done if row not in last])

    def _enlarge(self, rows: list[Row]) -> None:
        """Rows that have ended their first pass begin the second, or the errand before it."""
        pictured = [row for row in rows if row.second_pass and row.second_pass.upscaler]
        started = time.perf_counter()
        for row, pixels in decode(pictured, self._accelerator):
            self._begin_second(row, pixels)
        if pictured:
            self._observe("decode", time.perf_counter() - started, len(pictured))
        for row in rows:
            if row not in pictured:
                self._begin_second(row, None)

    def _begin_second(self, row: Row, pixels: Tensor | Exception | None) -> None:
        """With the decoded picture, where the second pass is made of that."""
        second, request = row.second_pass, row.request
        if second is None or request.ticket.future.done():
            return
        try:
            if isinstance(pixels, Exception):
                raise pixels
            if pixels is None:
                self._redraw(row, second.from_latents(row.latents, row.start.generator))
            else:
                turns = second.from_picture(to_image(pixels), row.start.generator)
                self._errands.add(Errand(request, turns, partial(self._redraw, row), row))
        except Exception as error:
            self._fail(request, error)

    def _redraw(self, row: Row, sample: Tensor) -> None:
        row.begin_next(sample)
        self._rows.append(row)

    def _decode(self, done: list[Row]) -> None:
        started = time.perf_counter()
        planner = done[0].request.planner  # rows of one call are of one model
        for row, pixels in decode(done, self._accelerator):
            if row.request.ticket.future.done():
                continue
            if isinstance(pixels, BaseException):
                self._fail(row.request, pixels)
                continue
            row.request.finished[row.seed] = pixels
            if len(row.request.finished) == len(row.request.rows):
                try:
                    self._end(row, time.perf_counter() - started)
                except Exception as error:  # the safety checker's: nothing goes out unchecked
                    self._fail(row.request, error)
        planner.cost.observe_decode(len(done), done[0].key.area, time.perf_counter() - started)
        self._observe("decode", time.perf_counter() - started, len(done))

    # -- errands ----------------------------------------------------------------------------

    def _run_errand(self, errand: Errand) -> None:
        """Its next turn; a failure ends its request and no other."""
        started, request = time.perf_counter(), errand.request
        try:
            next(errand.turns)
            self._accelerator.synchronize()
        except StopIteration as end:
            self._errands.drop(errand)
            errand.then(end.value)
        except Exception as error:
            if self._accelerator.is_out_of_memory(error):
                self._accelerator.free_memory()
            self._fail(request, error)
        else:
            request.planner.cost.observe_turn(errand.upscaler, time.perf_counter() - started)
            if isinstance(request, UpscaleRequest):
                request.count_turn()
        self._observe("upscale", time.perf_counter() - started, 1)

    def _begin_upscale(self, request: UpscaleRequest) -> None:
        def end(larger: Image) -> None:
            settle(request.ticket, request.result(larger))
            request.release()

        request.clock["taken"] = time.monotonic()
        self._errands.add(Errand(request, request.turns(), end))

    # -- how requests end -------------------------------------------------------------------

    def _end(self, last: Row, decode_s: float) -> None:
        """Hand a request whose images are all decoded to the image threads."""
        request, clock = last.request, last.request.clock
        flagged = self._flagged(request)
        timings = {
            "queue": clock["taken"] - request.ticket.submitted,
            "encode": clock["prepared"] - clock["taken"],
            "denoise": time.monotonic() - decode_s - clock["prepared"],
            "decode": decode_s,
        }
        request.ticket.progress = Progress("decoding", request.steps, request.steps)
        self._images.submit(deliver, request, timings, flagged, self._settings.safety)

    def _flagged(self, request: Request) -> set[int]:
        started = time.perf_counter()
        flags = flagged(request, self._settings.safety)
        if flags is not None:
            self._observe("safety", time.perf_counter() - started, len(request.finished))
        return flags or set()

    def _drop_ended(self) -> None:
        now = time.monotonic()
        for ticket in self._shelf.discard(lambda ticket: self._is_over(ticket, now)):
            settle(ticket, self._why_ended(ticket))

        def ended(request: Accepted) -> bool:
            return request.ticket.cancelled or now > request.expires

        requests = [*(row.request for row in self._rows), *self._errands.requests]
        active = {id(request): request for request in requests}.values()
        for request in [*self._queue.discard(ended), *filter(ended, active)]:
            self._fail(request, self._why_ended(request.ticket))

    def _is_over(self, ticket: Ticket, now: float) -> bool:
        return ticket.cancelled or now > ticket.submitted + self._allowed_s(ticket)

    def _why_ended(self, ticket: Ticket) -> StableDiffusionError:
        if ticket.cancelled:
            return Cancelled("the request was cancelled")
        allowed = self._allowed_s(ticket)
        return DeadlineExceeded(f"not finished within {allowed:.0f} s", loc=("deadline_s",))

    def _allowed_s(self, ticket: Ticket) -> float:
        return ticket.parameters.deadline_s or self._settings.request_timeout_s

    def _fail(self, request: Accepted, error: BaseException) -> None:
        """End a request with an error, and free its rows."""
        self._errands.drop_all(request)
        self._rows = [row for row in self._rows if row.request is not request]
        settle(request.ticket, told(error, self._accelerator))
        request.release()

    def _abandon(self) -> None:
        for ticket in self._shelf.discard(lambda ticket: True):
            settle(ticket, NotReady("the service stopped before this request was drawn"))
        while request := self._queue.take():
            self._fail(request, NotReady("the service stopped before this request was drawn"))
        for left in [*(row.request for row in self._rows), *self._errands.requests]:
            self._fail(left, NotReady("the service stopped before this request was drawn"))

    # -- accounts ---------------------------------------------------------------------------

    def _limit(self, key: BatchKey) -> int:
        """UNet rows a step may hold; never less than a guided image needs."""
        memory = next(r.request.planner.memory for r in self._rows if r.key == key)
        fits = min(self._accelerator.row_limit(key.area), memory.rows(key.area))
        return max(2, int(fits * self._shrink))

    def _busy_s(self) -> float:
        """Seconds of work left in the rows that are being drawn, and in errands."""
        rows = list(self._rows)
        drawing = sum(row.request.planner.cost.share(row.remaining) for row in rows)
        return drawing + sum(errand.left for errand in self._errands)

    def _share_s(self, request: Accepted) -> float:
        """Seconds of work in a request that waits."""
        if isinstance(request, UpscaleRequest):
            return request.cost
        return request.planner.cost.share(request.work)

    def _report(self, request: Request, batch: Batch) -> None:
        rows = request.rows
        step = min(row.done for row in rows)
        left = max(row.remaining for row in rows)
        eta = request.planner.cost.share(left)
        ticket = request.ticket
        every = ticket.preview_every  # read once: others may change it
        preview = self._previewer.due(rows[0], batch, every) if every else None
        ticket.progress = Progress("drawing", step, request.steps, 0, eta, preview)
        if ticket.on_step is not None:
            ticket.on_step(ticket.progress)


def _planned(planner: Planner, ticket: Ticket, inputs: Inputs) -> Accepted:
    plan = plan_upscale if isinstance(ticket.parameters, Upscale) else Planner.plan
    return plan(planner, ticket, inputs)
