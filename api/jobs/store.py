"""Jobs in SQLite, which alone decides about their state, for all processes of a service.

Every change of state is one statement that names the state it expects, so that of two writers only
one succeeds, and a job ends once. A row becomes `succeeded` after its files are written.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from api.http.database import opened
from api.jobs.job import Delivery, Job
from api.progress.record import State

VERSION = 3  # of the schema, in SQLite's user_version
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL, owner TEXT NOT NULL, task TEXT NOT NULL, parameters TEXT NOT NULL,
  folder TEXT NOT NULL, state TEXT NOT NULL, step INTEGER NOT NULL, steps INTEGER NOT NULL,
  priority INTEGER NOT NULL, due REAL NOT NULL, expires REAL, seconds REAL NOT NULL,
  attempts INTEGER NOT NULL, cancel INTEGER NOT NULL, runner TEXT,
  created REAL NOT NULL, started REAL, finished REAL, images TEXT NOT NULL, error TEXT,
  webhook TEXT, webhook_at REAL, webhook_tries INTEGER NOT NULL,
  webhook_error TEXT,
  fingerprint TEXT NOT NULL, trace TEXT, caller TEXT NOT NULL DEFAULT '',
  UNIQUE (owner, id)
);
CREATE INDEX IF NOT EXISTS jobs_queue ON jobs (state, due, number);
CREATE INDEX IF NOT EXISTS jobs_finished ON jobs (finished);
CREATE INDEX IF NOT EXISTS jobs_webhook ON jobs (webhook_at) WHERE webhook_at IS NOT NULL;
"""
#: what a job's `delivery` is, in SQL
DELIVERIES: dict[Delivery, str] = {
    "waiting": "webhook_at IS NOT NULL",
    "delivered": "webhook_at IS NULL AND webhook_error IS NULL",
    "dead": "webhook_at IS NULL AND webhook_error IS NOT NULL",
}
#: the state that clients see, in SQL
STATE_SEEN = (
    "CASE WHEN state = 'running' AND number IN (SELECT value FROM json_each(?)) "
    "THEN 'queued' ELSE state END"
)
JSON_COLUMNS = {"parameters", "images", "error"}
COLUMNS = [column.name for column in fields(Job) if column.name != "number"]
ENDS = (
    "state = ?, step = MAX(step, ?), finished = ?, parameters = ?, images = ?, error = ?, "
    "runner = NULL, caller = owner, "
    "webhook_at = CASE WHEN webhook IS NULL THEN NULL ELSE ? END"
)


class Store:
    """All jobs of a service, through one connection. It is thread-safe.

    Args:
        folder: The folder of `jobs.sqlite3`; it is made where it is missing.
        clock: Returns the Unix time.

    Raises:
        OSError, sqlite3.Error: The folder cannot be used.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._connection = opened(folder, "jobs.sqlite3", SCHEMA)
        self._connection.row_factory = sqlite3.Row
        self._connection.create_function("host", 1, host, deterministic=True)
        self._connection.execute("PRAGMA synchronous = FULL")  # accepted means kept
        self._change()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    # -- reading ----------------------------------------------------------------------------

    def get(self, owner: str, id: str) -> Job | None:
        """Return this owner's job of this id."""
        return self._one("SELECT * FROM jobs WHERE owner = ? AND id = ?", owner, id)

    def page(
        self,
        owner: str,
        state: State | None,
        limit: int,
        before: int | None,
        prefix: str = "",
        delivery: Delivery | None = None,
        waiting: Iterable[int] = (),
    ) -> list[Job]:
        """Return the owner's jobs with a smaller number than `before`, newest first.

        Args:
            prefix: What the ids begin with.
            delivery: How far the webhook of each is.
            waiting: The numbers of running jobs that count as queued.
        """
        query, values = "SELECT * FROM jobs WHERE owner = ?", list[object]([owner])
        if state is not None:
            query += f" AND {STATE_SEEN} = ?"
            values = [*values, json.dumps(list(waiting)), state]
        if before is not None:
            query, values = query + " AND number < ?", [*values, before]
        if prefix:
            query, values = query + " AND substr(id, 1, ?) = ?", [*values, len(prefix), prefix]
        if delivery is not None:
            query += f" AND webhook IS NOT NULL AND finished IS NOT NULL AND {DELIVERIES[delivery]}"
        return self._all(query + " ORDER BY number DESC LIMIT ?", *values, limit)

    def ahead(self, job: Job) -> tuple[int, float]:
        """Return how many queued jobs go before this one, and their seconds of work."""
        query = (
            "SELECT COUNT(*) AS jobs, COALESCE(SUM(seconds), 0) AS seconds FROM jobs "
            "WHERE state = 'queued' AND (due, number) < (?, ?)"
        )
        with self._lock:
            row = self._connection.execute(query, (job.due, job.number)).fetchone()
        return row["jobs"], row["seconds"]

    def count(self, state: State, caller: str | None = None) -> int:
        """Return how many jobs, of this caller or of all, are in this state."""
        with self._lock:
            query = "SELECT COUNT(*) FROM jobs WHERE state = ? AND caller = COALESCE(?, caller)"
            return int(self._connection.execute(query, (state, caller)).fetchone()[0])

    # -- a job's way ------------------------------------------------------------------------

    def add(self, job: Job) -> Job:
        """Keep a new job, which will end from here on. Return the job of this id that is there."""
        names, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
        with self._transaction():
            self._connection.execute(
                f"INSERT INTO jobs ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING",
                [_packed(name, getattr(job, name)) for name in COLUMNS],
            )
            query = "SELECT * FROM jobs WHERE owner = ? AND id = ?"
            return _job(self._connection.execute(query, (job.owner, job.id)).fetchone())

    def claim(self, runner: str, resting: Sequence[str] = ()) -> Job | None:
        """Return a queued job, which is now running at this runner.

        It is one of the caller who has the fewest running, and of those the one that is due first.

        Args:
            resting: The callers whose jobs wait.
        """
        return self._one(
            "UPDATE jobs SET state = 'running', runner = ?, attempts = attempts + 1, "
            "started = COALESCE(started, ?) WHERE number = (SELECT number FROM jobs "
            "WHERE state = 'queued' AND caller NOT IN (SELECT value FROM json_each(?)) "
            "ORDER BY (SELECT COUNT(*) FROM jobs AS other "
            "WHERE other.state = 'running' AND other.caller = jobs.caller), due, number LIMIT 1) "
            "RETURNING *",
            runner,
            self._clock(),
            json.dumps(list(resting)),
        )

    def release(self, job: Job, *, begun: bool) -> None:
        """Put a job back into the queue.

        Args:
            begun: Whether work on it was begun, which counts as an attempt.
        """
        self._write(
            "UPDATE jobs SET state = 'queued', runner = NULL, step = 0, "
            "started = CASE WHEN ? THEN started ELSE NULL END, "
            "attempts = attempts - ? WHERE number = ? AND state = 'running' AND runner = ?",
            begun,
            int(not begun),
            job.number,
            job.runner,
        )

    def end(
        self,
        job: Job,
        state: State,
        *,
        images: Sequence[dict[str, Any]] = (),
        error: dict[str, Any] | None = None,
    ) -> bool:
        """End a job, if it still is as `job` says (queued, or running at its runner).

        The parameters of `job` are kept: a model that was just loaded may have completed them.

        Returns:
            Whether it was so.
        """
        now = self._clock()
        step = job.steps if state == "succeeded" else 0
        left = (json.dumps(job.parameters), json.dumps(list(images)), _packed("error", error))
        values = (state, step, now, *left, now)
        return self._write(
            f"UPDATE jobs SET {ENDS} WHERE number = ? AND state = ? AND runner IS ?",
            *values,
            job.number,
            job.state,
            job.runner,
        )

    def request_cancel(self, owner: str, id: str) -> Job | None:
        """Cancel a queued job at once; a running one is cancelled by its runner."""
        job = self.get(owner, id)
        while job and job.state == "queued" and not self.end(job, "cancelled"):
            job = self.get(owner, id)  # it has just been claimed
        self._write(
            "UPDATE jobs SET cancel = 1 WHERE owner = ? AND id = ? AND state = 'running'", owner, id
        )
        return self.get(owner, id)

    def report(self, steps: dict[int, int]) -> None:
        """Write down how far running jobs are, for other processes: number -> step."""
        with self._transaction():
            self._connection.executemany(
                "UPDATE jobs SET step = ? WHERE number = ? AND state = 'running'",
                [(step, number) for number, step in steps.items()],
            )

    # -- housekeeping -----------------------------------------------------------------------

    def running(self) -> list[Job]:
        """Return all running jobs, of every process."""
        return self._all("SELECT * FROM jobs WHERE state = 'running'")

    def expired(self) -> list[Job]:
        """Return the queued jobs whose deadline has passed."""
        query = "SELECT * FROM jobs WHERE state = 'queued' AND expires <= ?"
        return self._all(query, self._clock())

    def forget(self, finished_before: float) -> list[Job]:
        """Remove the jobs that ended before this time and whose webhook is finished."""
        return self._all(
            "DELETE FROM jobs WHERE finished < ? AND webhook_at IS NULL RETURNING *",
            finished_before,
        )

    def folders(self) -> set[str]:
        """Return the folders that rows name."""
        with self._lock:
            return {row[0] for row in self._connection.execute("SELECT folder FROM jobs")}

    def claim_webhook(
        self, lease_s: float, hosts: Sequence[str] = (), owners: Sequence[str] = ()
    ) -> Job | None:
        """Return a job whose webhook is due; nobody else gets it for `lease_s` seconds.

        Args:
            hosts, owners: Those that are busy enough, and whose webhooks wait.
        """
        now = self._clock()
        return self._one(
            "UPDATE jobs SET webhook_at = ?, webhook_tries = webhook_tries + 1 WHERE number = "
            "(SELECT number FROM jobs WHERE webhook_at <= ? "
            "AND host(webhook) NOT IN (SELECT value FROM json_each(?)) "
            "AND owner NOT IN (SELECT value FROM json_each(?)) ORDER BY webhook_at LIMIT 1) "
            "RETURNING *",
            now + lease_s,
            now,
            json.dumps(list(hosts)),
            json.dumps(list(owners)),
        )

    def webhooks_to_come(self) -> int:
        """Return how many webhooks are still to be delivered, those of unfinished jobs included."""
        query = (
            "SELECT COUNT(*) FROM jobs "
            "WHERE webhook_at IS NOT NULL OR (webhook IS NOT NULL AND finished IS NULL)"
        )
        with self._lock:
            return int(self._connection.execute(query).fetchone()[0])

    def webhook_next(self, job: Job, at: float | None, failure: str | None) -> None:
        """Set when to try this webhook again, and why the last try failed.

        It stays as it is where somebody has wanted it again since `job` was claimed.

        Args:
            at: None means that no other try follows.
        """
        self._write(
            "UPDATE jobs SET webhook_at = ?, webhook_error = ? "
            "WHERE number = ? AND webhook_at IS ?",
            at,
            failure,
            job.number,
            job.webhook_at,
        )

    def webhook_again(self, job: Job) -> Job | None:
        """Make the webhook of a job that has ended due now, with all its tries to come."""
        return self._one(
            "UPDATE jobs SET webhook_at = ?, webhook_tries = 0, webhook_error = NULL "
            "WHERE number = ? AND webhook IS NOT NULL AND finished IS NOT NULL RETURNING *",
            self._clock(),
            job.number,
        )

    # -- SQLite -----------------------------------------------------------------------------

    def _change(self) -> None:
        """Bring the database of an older release to this schema."""
        with self._transaction():
            found = self._connection.execute("PRAGMA table_info(jobs)").fetchall()
            if "webhook_error" not in {row["name"] for row in found}:
                self._connection.execute("ALTER TABLE jobs ADD COLUMN webhook_error TEXT")
            if "caller" not in {row["name"] for row in found}:
                added = "ALTER TABLE jobs ADD COLUMN caller TEXT NOT NULL DEFAULT ''"
                self._connection.execute(added)
                self._connection.execute("UPDATE jobs SET caller = owner")
            self._connection.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def _write(self, statement: str, *values: object) -> bool:
        """Run a statement, and return whether a row was changed."""
        with self._lock:
            return self._connection.execute(statement, values).rowcount > 0

    def _all(self, query: str, *values: object) -> list[Job]:
        with self._lock:
            return [_job(row) for row in self._connection.execute(query, values).fetchall()]

    def _one(self, query: str, *values: object) -> Job | None:
        found = self._all(query, *values)
        return found[0] if found else None


def host(url: str) -> str:
    """Return the host and port of a URL as they are written; "" where there is none."""
    return url.partition("://")[2].partition("/")[0].partition("?")[0].lower()


def _packed(name: str, value: Any) -> Any:
    return json.dumps(value) if name in JSON_COLUMNS and value is not None else value


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    for name in JSON_COLUMNS:
        values[name] = json.loads(values[name]) if values[name] is not None else None
    return Job(**{**values, "cancel": bool(values["cancel"])})
