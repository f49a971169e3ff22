"""The engine's thread goes round here: requests are admitted, steps and tasks take turns.

It owns the models. Every accepted ticket's future ends exactly once: on this thread, in the image
threads, or by the watch (`watch.py`) where this thread fails.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial

from runnables.accelerators.base import Accelerator
from runnables.engine.active import Active
from runnables.engine.admission import Admission
from runnables.engine.denoise import Denoise
from runnables.engine.finish import Finish
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.model_pool import ModelPool
from runnables.engine.prepare import Preparer
from runnables.engine.row import Row
from runnables.engine.scheduling import Queue, Task, Turns, has_room
from runnables.engine.steps import Steps
from runnables.engine.watch import DIED, Observe, computes, spared
from runnables.engine.work import Work
from runnables.errors import Cancelled, EngineFailed, NotReady, StableDiffusionError
from runnables.ticket import Ticket, settle

logger = logging.getLogger(__name__)

SHARE = 0.02  # of the time may be spent on looking whether requests that wait have ended
IDLE_S = 0.5  # how often an idle engine looks for cancelled and expired requests
IN_VAIN = 3  # turns in a row that fail without any request to blame: the thread gives up
STOPPED = "the service stopped before this request was finished"


@dataclass(eq=False)
class Loop:
    """The loop is what the engine's thread runs.

    Attributes:
        stopped: set from any thread: the loop ends after the step under way.

    Args:
        over: returns the error that ends a ticket now, or None while its time goes on.
        beat: called with the seconds that the next work should take.
        clock: in seconds, of the same kind as a ticket's `submitted`.
    """

    pool: ModelPool
    accelerator: Accelerator
    queue: Queue
    admission: Admission
    active: Active
    steps: Steps
    finish: Finish
    turns: Turns[Row]
    _: KW_ONLY
    over: Callable[[Ticket], StableDiffusionError | None]
    beat: Callable[[float], None]
    observe: Observe
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self._prompts = self.pool.first.settings.prompt_cache
        self._preparer = Preparer(self._prompts, self.clock)
        self._in_vain = 0
        self._look_again = -math.inf
        self.stopped = False
        self.pool.evicted = self._forget
        self.accelerator.freeing = lambda: self._preparer.free_memory()

    def run(self) -> None:
        """Serve until `stopped`, and end what is left then."""
        with self.accelerator.session():
            while not self.stopped:
                self.active.blamed = []
                try:
                    self.turn()
                    self._in_vain = 0
                except Exception as error:
                    self._survive(error)
                self._check_device()
            self._abandon()

    def turn(self) -> None:
        """Let requests leave and join, and run a step or a tile; wait where there is neither."""
        self.beat(0.0)
        self._drop_ended()
        self.finish.collect()
        self._change_models()
        self._admit()
        self._work()

    def computes(self) -> bool:
        """Return whether the device still computes."""
        return computes(self.accelerator.device)

    def drop_all(self) -> None:
        """Drop all work, before the thread is started again: the watch has ended every request.

        Those that have come since then are ended here.
        """
        self.active.drop()
        for ticket in self.pool.discard(lambda ticket: True):
            settle(ticket, EngineFailed(DIED))
        for work in self.queue.discard(lambda work: True):
            settle(work.ticket, EngineFailed(DIED))
            work.release()
        self.steps.forget()
        self._preparer = Preparer(self._prompts, self.clock)
        self._in_vain = 0

    # -- after errors -----------------------------------------------------------------------

    def _survive(self, error: Exception) -> None:
        """End the requests whose work has raised an error; the others go on."""
        blamed, self.active.blamed = self.active.blamed, []
        self.steps.forget()
        for work in blamed:
            self.active.fail(work, error)
        self._in_vain = 0 if blamed else self._in_vain + 1
        if not blamed:
            logger.error("the engine failed outside of any request", exc_info=error)
        if self._in_vain >= IN_VAIN:
            raise error

    def _check_device(self) -> None:
        """After an unexpected error, look whether the device is lost; then the thread gives up."""
        suspect, self.active.suspect = self.active.suspect, False
        if suspect and not self.computes():
            raise EngineFailed(f"the device {self.accelerator.device} is lost")

    # -- requests that end ------------------------------------------------------------------

    def _drop_ended(self) -> None:
        """End the requests that are cancelled or late, and free what those that began hold."""
        ended = list(filter(self._has_ended, self.active.works))
        if (now := self.clock()) >= self._look_again:
            for ticket in self.pool.discard(lambda ticket: self.over(ticket) is not None):
                settle(ticket, self._why(ticket))
            ended += self.queue.discard(self._has_ended)
            self._look_again = now + (self.clock() - now) / SHARE  # hundreds may wait
        for work in ended:
            self.active.fail(work, self._why(work.ticket))

    def _has_ended(self, work: Work) -> bool:
        # the watch may have ended it
        return work.ticket.future.done() or self.over(work.ticket) is not None

    def _why(self, ticket: Ticket) -> StableDiffusionError:
        return self.over(ticket) or Cancelled("the request has ended already")

    def _abandon(self) -> None:
        for ticket in self.pool.discard(lambda ticket: True):
            settle(ticket, NotReady(STOPPED))
        while work := self.queue.take():
            self.active.fail(work, NotReady(STOPPED))
        for left in self.active.works:
            self.active.fail(left, NotReady(STOPPED))

    # -- models -----------------------------------------------------------------------------

    def _change_models(self) -> None:
        """Let models come and go, and admit the requests that waited for one."""
        if self.pool.expecting:
            self.steps.forget()  # they may hold the one that has to go
        self.active.blamed = []
        for waiting, outcome in self.pool.turn():
            if isinstance(outcome, StableDiffusionError):
                settle(waiting.ticket, outcome)
            else:
                self.admission.admit_waiting(waiting, outcome)

    def _forget(self, model: LoadedModel) -> None:
        """Release what is kept of a model that is evicted."""
        self.steps.forget()
        for family in filter(None, (model.base, model.refiner)):
            self._preparer.forget(family)

    # -- work that begins -------------------------------------------------------------------

    def _admit(self) -> None:
        """Prepare waiting requests while there is room, their prompts in one text encode.

        Pictures to start from or for ControlNets are encoded one by one, between the steps.
        """
        active, taken = self.active, list[Denoise]()
        while self._has_room() and (work := self.queue.take()):
            try:
                work.begin(partial(self._begin, taken), active.tasks)
            except Exception as error:
                active.fail(work, error)
        if not taken:
            return
        started = self.clock()
        self._preparer.encode(taken)
        pictures = [work for work in taken if work.inputs.image or work.inputs.controls]
        for task in active.tasks:
            if task.stage == "encode" and task.work in taken and task.work not in pictures:
                self._run(task)
        seconds = self.clock() - started
        self.turns.delayed(seconds)
        self.observe("encode", seconds, len(taken))

    def _begin(self, taken: list[Denoise], work: Denoise) -> None:
        """Take a request whose rows are to be made."""
        taken.append(work)
        tiles, left = self._preparer.rows(work), partial(getattr, work, "share_s")
        task = Task(work, tiles, self._join, left, "encode", held=work.rows_to_come)
        self.active.tasks.add(task)

    def _join(self, rows: list[Row]) -> None:
        self.active.rows += rows

    def _has_room(self) -> bool:
        if (following := self.queue.first) is None:  # as nearly always: nothing else is looked at
            return False
        active, row_limit = self.active, self.accelerator.row_limit
        rows = [*active.candidates, *active.finished]
        return has_room(rows, active.tasks, following, row_limit)

    # -- turns ------------------------------------------------------------------------------

    def _work(self) -> None:
        self.accelerator.before_step()
        active, started = self.active, self.clock()
        active.blamed = []
        if task := active.tasks.due(steps_wait=bool(active.rows)):
            self._run(task)
            active.tasks.took(seconds := self.clock() - started)
            self.observe(task.stage, seconds, 1)
            self.turns.took_beside(task.work.ticket.caller, seconds)
        elif active.rows:
            self.steps.take()
            active.tasks.stepped(self.clock() - started)
        else:
            self.steps.forget()  # its rows hold their finished latents
            self.queue.wait(IDLE_S)

    def _run(self, task: Task) -> None:
        """Run the task's next tile; a failure ends its request and no other."""
        active, work, started = self.active, task.work, self.clock()
        active.blamed = [work]
        self.beat(task.left_s())
        try:
            next(task.tiles)
            self.accelerator.synchronize()
        except StopIteration as end:
            active.tasks.drop(task)
            task.then(end.value)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold the failed call's tensors
            if self.accelerator.is_out_of_memory(error):
                self.accelerator.free_memory()
            active.fail(work, error)
        else:
            with spared("reporting progress"):
                task.counted(self.clock() - started)
