"""Webhooks, which report that a job has ended: signed, retried, at least once.

The store has what is due, so a restart goes on where the last process stopped. A receiver may hear
of a job twice (if its answer got lost) and recognises it by its id.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp

from api.http import fetch
from api.jobs.job import Job
from api.jobs.store import Store, host
from runnables.errors import InvalidInput

logger = logging.getLogger(__name__)

AT_ONCE = 32  # deliveries
PER_HOST = 4  # of them, so that a slow receiver does not hold up the others
PER_OWNER = 16  # of one key, whose receivers may all be slow
LOOK_S = 0.5
LEASE_S = 60.0  # longer than a delivery may take
TRIES = 18  # 1, 2, 4, ... seconds, then hourly: about six hours
LONGEST_S = 3600.0
GONE = 410  # the receiver wants no more

Observe = Callable[[str], None]


def signature(secret: str, body: bytes) -> str:
    """Return `X-Signature-256` of a body: HMAC (RFC 2104) with SHA-256, in hexadecimal."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def delay(tries: int) -> float:
    """Return the seconds until the next try.

    They double, and they are spread so that receivers do not get all tries at once.
    """
    return min(2.0 ** (tries - 1), LONGEST_S) * random.uniform(0.75, 1.25)


class Webhooks:
    """One thread that delivers what is due.

    Args:
        document: Returns a job as clients see it.
        insecure: Whether plain http and private addresses are allowed.
        observe: It is called with "delivered", "retried" or "given_up".
    """

    def __init__(
        self,
        store: Store,
        document: Callable[[Job], dict[str, Any]],
        secret: str,
        insecure: bool = False,
        observe: Observe = lambda outcome: None,
    ) -> None:
        self._store = store
        self._document = document
        self._secret = secret
        self._insecure = insecure
        self._observe = observe
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def close(self) -> None:
        """Finish deliveries that are under way; the others wait for the next start."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        under_way: dict[asyncio.Task[None], Job] = {}
        async with fetch.session(self._insecure) as session:
            while not self._stopped.is_set():
                job = await self._next([*under_way.values()]) if len(under_way) < AT_ONCE else None
                if job is None:
                    await asyncio.sleep(LOOK_S)
                    continue
                task = asyncio.create_task(self._deliver(session, job))
                under_way[task] = job
                task.add_done_callback(under_way.pop)
            await asyncio.gather(*under_way)

    async def _next(self, under_way: list[Job]) -> Job | None:
        hosts = Counter(host(job.webhook or "") for job in under_way)
        owners = Counter(job.owner for job in under_way if job.owner)
        busy_hosts = [name for name, count in hosts.items() if count >= PER_HOST]
        busy_owners = [name for name, count in owners.items() if count >= PER_OWNER]
        claim = self._store.claim_webhook
        try:
            return await asyncio.to_thread(claim, LEASE_S, busy_hosts, busy_owners)
        except Exception:
            logger.exception("webhooks could not be looked up; trying again")
            return None

    async def _deliver(self, session: aiohttp.ClientSession, job: Job) -> None:
        try:
            outcome = await self._post(session, job)
            through = outcome == "delivered" or job.webhook_tries >= TRIES
            at = None if through else time.time() + delay(job.webhook_tries)
            await asyncio.to_thread(self._store.webhook_next, job, at)
            self._observe("given_up" if through and outcome != "delivered" else outcome)
        except Exception:  # its lease runs out, and it is tried again
            logger.exception("webhook of job %s", job.id)

    async def _post(self, session: aiohttp.ClientSession, job: Job) -> str:
        body = json.dumps(self._document(job)).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Webhook-Timestamp": str(int(time.time())),
            "X-Signature-256": signature(self._secret, body),
            **({"traceparent": job.trace} if job.trace else {}),
        }
        try:
            url = fetch.check_url(job.webhook or "", "webhook", insecure=self._insecure)
            async with session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError, InvalidInput) as error:
            logger.info("webhook of job %s, try %d: %s", job.id, job.webhook_tries, error)
            return "retried"
        if 200 <= status < 300 or status == GONE:
            return "delivered"
        logger.info("webhook of job %s, try %d: status %d", job.id, job.webhook_tries, status)
        return "retried"
