"""All jobs of a service, behind the one object that routes and hosts use."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from api.http import fetch, tracing
from api.http.keys import Keys
from api.jobs.document import document, placed
from api.jobs.files import Files
from api.jobs.job import Delivery, Job
from api.jobs.lease import Lease
from api.jobs.runner import Runner
from api.jobs.store import Store
from api.jobs.submission import Submission
from api.jobs.watch import Watch
from api.jobs.webhooks import Webhooks
from api.progress.live import Hub, Live
from api.progress.record import State
from api.progress.requests import Requests
from runnables.errors import Conflict, InvalidInput, NotReady, OverCapacity
from runnables.metrics import Metrics
from runnables.parameters import Parameters
from runnables.runnable import Runnable
from runnables.ticket import Inputs

logger = logging.getLogger(__name__)

LEVEL_S = 60.0  # of waiting that one level of priority is worth
SWEEP_S = 300.0
OPEN_AGAIN_S = 10.0  # between tries to open a folder that cannot be used
NO_WEBHOOKS = "webhooks are not set up here: the operator sets SD_WEBHOOK_SECRET"
Document = Callable[[Job], dict[str, Any]]


class Jobs:
    """All jobs of a service: it accepts, finds and cancels them. `start` opens the folder.

    Args:
        hub: Listeners of progress.
        requests: The synchronous requests, which `find` and `cancel` know as well.
        keys: The owners' keys, for their shares and quotas.
    """

    def __init__(
        self,
        runnable: Runnable,
        hub: Hub,
        requests: Requests,
        keys: Keys,
        metrics: Metrics | None = None,
    ) -> None:
        self.hub = hub
        self._keys = keys
        self._requests = requests
        self._watch = Watch(metrics, keys)
        self._runnable = runnable
        self._settings = runnable.settings
        self._parts: Parts | None = None
        self._failure = "stored jobs cannot be looked up before the model is loaded"
        self._opening = threading.Lock()
        self._stopped = threading.Event()

    # -- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the folder, go on with what a former process left, and begin to work.

        A folder that cannot be used is tried again now and then.
        """
        self._open_folder()
        threading.Thread(target=self._keep_house, name="sweep", daemon=True).start()

    def stop(self) -> None:
        """Begin no more jobs. This is to be called before the runnable drains."""
        with self._opening:
            self._stopped.set()
        if self._parts:
            self._parts.runner.stop()

    def close(self) -> None:
        """Write down what has ended. This is to be called after the runnable was closed."""
        self.stop()
        if self._parts:
            parts, self._parts = self._parts, None
            self._failure = "the service is stopping"
            parts.close()

    # -- what clients do --------------------------------------------------------------------

    def submit(
        self, owner: str, submission: Submission, address: str, base: str = ""
    ) -> tuple[Job, bool]:
        """Accept a job, which will end whatever happens to this process.

        Args:
            address: From where it was sent.
            base: The address at which the caller sees the service, for the job's webhook.

        Returns:
            The job, and whether it is new.

        Raises:
            Conflict: The id names a job with another body.
            OverCapacity: SD_JOBS_MAX jobs of this caller are waiting.
            InvalidInput, NotReady: As on the synchronous endpoints.
        """
        parts, id = self._open(), submission.request.id or uuid4().hex
        fingerprint = submission.fingerprint()
        there = parts.store.get(owner, id)
        if there is not None:
            return _same(there, fingerprint), False
        caller = self._keys.caller(owner, address).name
        self._check_room(parts.store, caller)
        self._check_webhook(submission)
        job = replace(self._planned(owner, id, submission, fingerprint), caller=caller)
        try:
            job = replace(job, base=base, folder=parts.files.new(submission.images))
        except OSError as error:
            raise unusable(error) from error
        try:
            kept = parts.store.add(job)
        except sqlite3.Error:
            parts.files.remove([job.folder])
            raise
        if kept.folder != job.folder:  # the same id came twice at the same moment
            parts.files.remove([job.folder])
            return _same(kept, fingerprint), False
        parts.runner.wake()
        return kept, True

    def find(self, owner: str, id: str) -> dict[str, Any] | None:
        """Return the document of this owner's job or synchronous request.

        Raises:
            NotReady: There is no such request, and stored jobs cannot be looked up now.
        """
        parts = self._parts
        job = parts.store.get(owner, id) if parts else None
        if job is not None:
            return self.document(job)
        request = self._requests.find(owner, id)
        if request:
            return document(request[0], request[1].progress)
        if parts is None:  # a job of this id may be stored
            raise NotReady(self._failure)
        return None

    def page(
        self,
        owner: str,
        state: State | None,
        limit: int,
        before: int | None,
        prefix: str,
        delivery: Delivery | None,
    ) -> list[Job]:
        """Return the owner's jobs as `Store.page` does, by the states that their documents have.

        Raises:
            NotReady: The folder cannot be used, or is not open.
        """
        parts = self._open()
        waiting = parts.runner.waiting()
        return parts.store.page(owner, state, limit, before, prefix, delivery, waiting)

    @property
    def store(self) -> Store:
        """Return the stored jobs.

        Raises:
            NotReady: The folder cannot be used, or is not open.
        """
        return self._open().store

    def cancel(self, owner: str, id: str) -> dict[str, Any] | None:
        """End a job or a request at its next step; one that has ended stays as it is.

        Raises:
            NotReady: As `find` raises it.
        """
        job = self._cancel_stored(self._parts.store, owner, id) if self._parts else None
        if job is None:
            request = self._requests.find(owner, id)
            if request:
                request[1].cancel()
        elif live := self._live(job):
            live.cancel()
        self.hub.changed((owner, id))
        return self.find(owner, id)

    def deliver_again(self, job: Job) -> Job:
        """Send a job's webhook again, now, with the same `webhook-id`.

        Raises:
            Conflict: The job has not ended, or has no webhook, or nothing could sign it.
        """
        if not self._settings.webhook_secret:
            raise Conflict(NO_WEBHOOKS, loc=("id",))
        again = self.store.webhook_again(job)
        if again is None:
            raise Conflict(f"job {job.id} has not ended, or has no webhook", loc=("id",))
        return again

    def _cancel_stored(self, store: Store, owner: str, id: str) -> Job | None:
        before = store.get(owner, id)
        after = store.request_cancel(owner, id)
        if before and after and before.state == "queued" and after.state == "cancelled":
            self._watch.ended(after, "cancelled", None, None)
        return after

    def document(self, job: Job) -> dict[str, Any]:
        """Return the job as clients see it."""
        live, parts = self._live(job), self._parts
        if job.state != "queued" or parts is None:
            return document(job, live.progress if live and not job.final else None)
        in_engine = max(parts.runner.waiting().values(), default=-1) + 1  # they go first
        count, seconds = parts.store.ahead(job)
        return document(job, None, (in_engine + count, seconds + parts.runner.remaining_s()))

    def _reported(self, job: Job) -> dict[str, Any]:
        """Return the job as a webhook reports it, with whole addresses of its images."""
        return placed(self.document(job), job.base or self._settings.path_prefix)

    def file(self, job: Job, index: int) -> Path:
        """Return where a finished job's image lies."""
        return self._open().files.path(job.folder, job.images[index]["file"])

    def counts(self) -> dict[str, int]:
        """Return how many jobs wait and run, for metrics."""
        if self._parts is None:
            return {"queued": 0, "running": 0}
        store = self._parts.store
        return {"queued": store.count("queued"), "running": store.count("running")}

    # -- inside -----------------------------------------------------------------------------

    def _open(self) -> Parts:
        if self._parts is None:
            raise NotReady(self._failure)
        return self._parts

    def _live(self, job: Job) -> Live | None:
        return self._parts.runner.live(job.number) if self._parts else None

    def _planned(self, owner: str, id: str, wanted: Submission, fingerprint: str) -> Job:
        images = wanted.images
        inputs = Inputs(images.get("img"), images.get("mask"), tuple(wanted.controls))
        plan = self._runnable.plan(wanted.parameters, inputs)
        parameters = plan.parameters
        if isinstance(parameters, Parameters):  # enlarging needs none of the models
            self._keys.check_model(owner, parameters.model or self._runnable.describe()["name"])
            if parameters.seed is None:  # the model is not loaded; a second attempt needs the same
                parameters = parameters.model_copy(update={"seed": parameters.random_seed()})
        now = time.time()
        expires = now + wanted.deadline_s if wanted.deadline_s else None
        return Job(
            id=id,
            owner=owner,
            task=wanted.parameters.task,
            parameters=parameters.model_dump(mode="json", exclude_none=True),
            steps=plan.steps,
            seconds=plan.seconds,
            priority=wanted.priority,
            due=min(now + (9 - wanted.priority) * LEVEL_S, expires or float("inf")),
            expires=expires,
            created=now,
            webhook=wanted.request.webhook,
            trace=tracing.traceparent(),
            fingerprint=fingerprint,
        )

    def _check_room(self, store: Store, caller: str) -> None:
        waiting = store.count("queued", caller)
        if waiting >= self._settings.jobs_max:
            message = f"{waiting} jobs of this caller are waiting; try again later"
            raise OverCapacity(message, retry_after=30)

    def _check_webhook(self, wanted: Submission) -> None:
        if wanted.request.webhook is None:
            return
        fetch.check_url(wanted.request.webhook, "webhook", insecure=self._settings.fetch_insecure)
        if not self._settings.webhook_secret:
            raise InvalidInput(NO_WEBHOOKS, loc=("webhook",))

    def _open_folder(self) -> None:
        folder = self._settings.jobs_folder
        with self._opening:
            if self._stopped.is_set():
                return
            try:
                self._parts = Parts(
                    self._runnable, folder, self.hub, self._watch, self._keys, self._reported
                )
            except (OSError, sqlite3.Error) as error:
                failure = f"SD_JOBS_DIR={folder} cannot be used: {error}"
                if failure != self._failure:
                    logger.error("no jobs are accepted, trying again: %s", failure)
                self._failure = failure
            else:
                self._parts.start()

    def _keep_house(self) -> None:
        """Remove what is old now and then. Where the folder is not open, try to open it."""
        while not self._stopped.is_set():
            parts = self._parts
            if parts is None:
                self._stopped.wait(OPEN_AGAIN_S)
                self._open_folder()
                continue
            try:
                parts.sweep(self._settings.jobs_retention_h * 3600)
            except Exception:
                logger.exception("old jobs could not be removed; trying again")
            self._stopped.wait(SWEEP_S)


class Parts:
    """The jobs folder, and the threads that work on it."""

    def __init__(
        self,
        runnable: Runnable,
        folder: Path,
        hub: Hub,
        watch: Watch,
        keys: Keys,
        document: Document,
    ) -> None:
        settings = runnable.settings
        self.store = Store(folder)
        self.files = Files(folder / "files")
        self.lease = Lease(folder / "processes")
        self.runner = Runner(
            runnable, self.store, self.files, self.lease, hub, settings.jobs_active, watch, keys
        )
        self.webhooks = Webhooks(
            self.store,
            document,
            settings.webhook_secret,
            settings.fetch_insecure,
            watch.webhook,
        )

    def start(self) -> None:
        """Begin to work on jobs and to deliver webhooks."""
        self.runner.start()
        self.webhooks.start()

    def sweep(self, kept_s: float) -> None:
        """Remove jobs that ended so long ago, and files that no job names."""
        forgotten = self.store.forget(time.time() - kept_s)
        self.files.remove(job.folder for job in forgotten)
        self.files.remove(self.files.orphans(self.store.folders()))

    def close(self) -> None:
        """Stop all work and release the folder. The engine must have been closed."""
        self.runner.close()
        self.webhooks.close()
        self.lease.release()
        self.store.close()


def unusable(error: OSError | sqlite3.Error) -> NotReady:
    """Return what clients read while the jobs folder is full or gone."""
    logger.error("SD_JOBS_DIR cannot be used: %s", error)
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return NotReady(f"the folder of jobs cannot be used now: {why}")


def _same(there: Job, fingerprint: str) -> Job:
    if there.fingerprint != fingerprint:
        raise Conflict(f"id: job {there.id} is there, with another body", loc=("id",))
    return there
