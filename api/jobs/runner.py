"""The runner, which passes queued jobs to the runnable and writes down how they end."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL.Image import Image

from api.http.keys import Keys
from api.http.stopping import stopping
from api.jobs.files import Files
from api.jobs.job import Job
from api.jobs.lease import Lease
from api.jobs.store import Store
from api.jobs.submission import control_names
from api.jobs.watch import Watch
from api.progress.live import Hub, Live
from api.progress.record import State, failure
from runnables.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    GenerationFailed,
    NotReady,
    OverCapacity,
    StableDiffusionError,
)
from runnables.images import files
from runnables.images.codec import Format
from runnables.parameters import MODELS, AnyParameters, OutputFormat, Priority
from runnables.runnable import Runnable
from runnables.ticket import Inputs, Result, Ticket

logger = logging.getLogger(__name__)
#: a result with its images' files, or what went wrong
Ending = tuple[Result, Sequence[bytes]] | Exception

ATTEMPTS = 5  # a job that ran during so many crashes is likely their cause
WAITING = 4  # jobs are submitted while fewer requests wait in the engine: the others wait here
IN_ENGINE_S = 3600.0  # how long a job without a deadline may be in the engine
WRITE_AGAIN_S = 5.0  # between tries to write down how a job ended
LOOK_S = 0.5  # how often an idle runner looks for work of other processes
BUSY_S = 0.05  # and one that waits for room in the engine
PAUSE_S = 0.5  # how long a caller's jobs rest after the engine has refused one


@dataclass(eq=False)
class Runner:
    """One thread that claims jobs, and a pool of threads that writes down how they ended.

    Args:
        limit: The most jobs in the engine.
        watch: It hears when a job starts and ends.
        keys: The owners' keys, for their shares and quotas.
    """

    runnable: Runnable
    store: Store
    files: Files
    lease: Lease
    hub: Hub
    limit: int
    watch: Watch
    keys: Keys

    def __post_init__(self) -> None:
        self._active: dict[int, tuple[Job, Live]] = {}
        self._resting: dict[str, float] = {}  # caller -> until when (time.monotonic)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._tidy_at = 0.0  # time.monotonic
        self._reported: dict[int, int] = {}
        self._settlers = ThreadPoolExecutor(2, thread_name_prefix="jobs")
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin to claim jobs."""
        self._thread.start()

    def stop(self) -> None:
        """Claim no more jobs; those in the engine go on."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        """Write down what the engine has ended. The engine must have been closed."""
        self.stop()
        self._settlers.shutdown()

    @property
    def _stopped(self) -> bool:
        return self._stopping.is_set()

    def wake(self) -> None:
        """Look for jobs now: there may be some."""
        self._wake.set()

    def live(self, number: int | None) -> Live | None:
        """Return what this process knows of a job that it works on."""
        active = self._active.get(number) if number is not None else None
        return active[1] if active else None

    def waiting(self) -> dict[int, int]:
        """Return the jobs that wait in the engine: number -> position there."""
        lives = [(number, live.progress) for number, (_, live) in list(self._active.items())]
        return {
            number: progress.position
            for number, progress in lives
            if progress and progress.state == "queued"
        }

    def remaining_s(self) -> float:
        """Return the estimated seconds until all jobs in the engine are finished."""
        lives = [live for _, live in list(self._active.values())]
        return max(((live.progress and live.progress.eta_s) or 0.0 for live in lives), default=0.0)

    # -- the runner's thread ----------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped:
            try:
                if time.monotonic() > self._tidy_at:
                    self._tidy()
                    self._tidy_at = time.monotonic() + LOOK_S
                busy = self._feed()
            except Exception:  # the disk is full, the database is locked: later it may work
                logger.exception("jobs could not be fed; trying again")
                busy = False
            self._wake.wait(BUSY_S if busy else LOOK_S)
            self._wake.clear()

    def _feed(self) -> bool:
        """Submit jobs while there is room. Return True where some are left."""
        while not self._stopped and not stopping() and self.runnable.ready:
            if not self._has_room():
                return True
            job = self.store.claim(self.lease.id, self._callers_at_rest())
            if job is None:
                return bool(self._resting)
            self._submit(job)
        return False

    def _callers_at_rest(self) -> list[str]:
        """Return the callers of whose jobs the engine has just refused one."""
        for caller, until in list(self._resting.items()):
            if until <= time.monotonic():
                del self._resting[caller]
        return list(self._resting)

    def _has_room(self) -> bool:
        """Return whether a job may be submitted.

        One job at least is always in the engine, or synchronous requests could starve all jobs.
        """
        waiting = self.runnable.load().waiting
        return not self._active or (waiting < WAITING and len(self._active) < self.limit)

    def _submit(self, job: Job) -> None:
        """Submit a job; where the engine takes none of its caller now, the job waits on."""
        assert job.number is not None
        try:
            self.keys.check_quota(job.owner)
        except OverCapacity as error:
            self._end(job, "failed", error=_reason(error))
            return
        live = Live(self.hub, (job.owner, job.id))
        try:
            parameters = _parameters(job)
            inputs = Inputs(
                self.files.input(job.folder, "img"),
                self.files.input(job.folder, "mask"),
                tuple(self._controls(job, len(parameters.controlnets))),
            )
            live.ticket = self.runnable.submit(
                parameters,
                inputs,
                on_step=live.on_step,
                preview_every=self.hub.every(live.key),
                caller=self.keys.caller(job.owner, job.caller),
            )
        except (OverCapacity, NotReady):
            self._hand_back(job)
            return
        except Exception as error:
            self._end(job, "failed", error=_reason(error))
            return
        self._active[job.number] = (job, live)
        live.ticket.future.add_done_callback(partial(self._ended, job, live))
        self.hub.changed(live.key)

    def _controls(self, job: Job, count: int) -> list[Image]:
        found = [self.files.input(job.folder, name) for name in control_names(count)]
        return [image for image in found if image is not None]

    # -- how jobs end -----------------------------------------------------------------------

    def _ended(self, job: Job, live: Live, _: object) -> None:
        self._settlers.submit(self._settle, job, live)

    def _settle(self, job: Job, live: Live) -> None:
        ticket = live.release()
        assert job.number is not None and ticket is not None
        try:
            self._persist(job, ticket)
        except Exception:  # it is still `running` in the store, and will be generated again
            logger.exception("job %s could not be written down", job.id)
        finally:
            if self.live(job.number) is live:  # or it was claimed again already
                del self._active[job.number]
            self.hub.changed((job.owner, job.id))
            self._wake.set()

    def _persist(self, job: Job, ticket: Ticket) -> None:
        """Write down how a job ended, for as long as it takes until the disk has room for it."""
        ended = self._ending(ticket)
        while True:
            try:
                self._write_down(job, ended)
                return
            except (OSError, sqlite3.Error) as error:
                if self._stopped:
                    raise
                logger.error("job %s waits to be written down: %s", job.id, error)
                self._stopping.wait(WRITE_AGAIN_S)

    def _ending(self, ticket: Ticket) -> Ending:
        """Return the result with its files, or the error: also where no file can be made of it."""
        try:
            result = ticket.future.result()
            kind, settings = image_format(result.parameters.output_format), self.runnable.settings
            made = [files.image_file(result, image, kind, settings) for image in result.images]
        except Exception as error:
            return error
        return result, made

    def _write_down(self, job: Job, ended: Ending) -> None:
        if isinstance(ended, tuple):
            result = ended[0]
            complete = result.parameters.model_dump(mode="json", exclude_none=True)
            done = replace(job, parameters=complete)
            if self._end(done, "succeeded", images=self._keep(job, *ended), result=result):
                self.keys.used(job.owner, result.cost_units)
        elif isinstance(ended, EngineFailed):  # perhaps because of this job
            self._recover(job)
        elif isinstance(ended, (OverCapacity, NotReady)):  # the service stops, or a replica is busy
            self._hand_back(job)
        elif isinstance(ended, Cancelled):
            self._end(job, "cancelled")
        else:
            self._end(job, "failed", error=_reason(ended))

    def _hand_back(self, job: Job) -> None:
        """Queue a job again that was refused; other callers' jobs go first for a moment."""
        self._resting[job.caller] = time.monotonic() + PAUSE_S
        self.store.release(job, begun=False)
        self.hub.changed((job.owner, job.id))

    def _end(
        self,
        job: Job,
        state: State,
        *,
        images: Sequence[dict[str, Any]] = (),
        error: dict[str, Any] | None = None,
        result: Result | None = None,
    ) -> bool:
        """End a job, unless it has ended already. Return whether this call has ended it."""
        ended = self.store.end(job, state, images=images, error=error)
        if ended:
            self.watch.ended(job, state, result, error)
        self.hub.changed((job.owner, job.id))
        return ended

    def _keep(self, job: Job, result: Result, made: Sequence[bytes]) -> list[dict[str, Any]]:
        """Write the images; the files of another attempt are not overwritten."""
        kind = image_format(result.parameters.output_format)
        kept = []
        for i, (image, data) in enumerate(zip(result.images, made, strict=True)):
            name = f"{job.attempts}-{i}.{kind}"
            self.files.write(job.folder, name, data)
            kept.append(
                {
                    "seed": image.seed,
                    "finish_reason": image.finish_reason,
                    "hint": image.hint,
                    "width": image.image.width,
                    "height": image.image.height,
                    "content_type": f"image/{kind}",
                    "file": name,
                }
            )
        return kept

    # -- housekeeping -----------------------------------------------------------------------

    def _tidy(self) -> None:
        """End jobs that are expired or cancelled elsewhere, and recover those of dead processes."""
        self._report()
        for job in self.store.expired():
            late = DeadlineExceeded("not finished by its deadline", loc=("deadline_s",))
            self._end(job, "failed", error=_reason(late))
        for job in self.store.running():
            live = self.live(job.number)
            if live is not None:
                if job.cancel:
                    live.cancel()
            elif job.runner == self.lease.id or not self.lease.alive(job.runner or ""):
                self._recover(job)

    def _report(self) -> None:
        """Write down how far jobs are, where that has changed: clients may ask other processes."""
        lives = [(number, live.progress) for number, (_, live) in list(self._active.items())]
        steps = {number: progress.step for number, progress in lives if progress}
        if steps != self._reported:
            self.store.report(steps)
            self._reported = steps

    def _recover(self, job: Job) -> None:
        """Queue a job again whose process or engine has died, unless that happened too often."""
        logger.warning("job %s was interrupted (attempt %d)", job.id, job.attempts)
        if job.cancel:
            self._end(job, "cancelled")
        elif job.attempts >= ATTEMPTS:
            why = f"the service stopped {job.attempts} times while it was worked on"
            self._end(job, "failed", error=_reason(GenerationFailed(why)))
        else:
            self.store.release(job, begun=True)
            self.hub.changed((job.owner, job.id))


def image_format(wanted: OutputFormat | None) -> Format:
    """Return the format of a job's files: JPEG by default, and PNG where others send JSON."""
    return "png" if wanted == "json" else wanted or "jpeg"


def priority_class(priority: int) -> Priority:
    """Return one of the engine's three classes for one of the ten of jobs."""
    return "low" if priority < 4 else "normal" if priority < 7 else "high"


def _parameters(job: Job) -> AnyParameters:
    left = IN_ENGINE_S if job.expires is None else max(job.expires - time.time(), 0.001)
    parameters = MODELS[job.task].model_validate(job.parameters)
    return parameters.model_copy(
        update={"priority": priority_class(job.priority), "deadline_s": left}
    )


def _reason(error: BaseException) -> dict[str, Any]:
    """Return what the job's owner reads."""
    if not isinstance(error, StableDiffusionError):
        logger.error("a job failed", exc_info=error)
        error = GenerationFailed("this job failed; the server's log says why")
    return failure(error)
