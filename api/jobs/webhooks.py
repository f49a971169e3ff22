"""Webhooks, which report that a job has ended: signed, retried, at least once.

They follow Standard Webhooks (standardwebhooks.com), whose libraries verify them. The store has
what is due, so a restart goes on where the last process stopped. A receiver may hear of a job twice
(if its answer got lost, or the owner wanted it again) and recognises it by `webhook-id`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from api.http import fetch
from api.jobs.job import Job
from api.jobs.store import Store, host
from runnables.errors import ConfigurationError, InvalidInput

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


SECRET = "whsec_"
SECRET_BYTES = (24, 64)  # what the standard allows


def keys(secrets: str) -> list[bytes]:
    """Return the keys of SD_WEBHOOK_SECRET, each `whsec_` and base64.

    Raises:
        ConfigurationError: One is no such secret.
    """
    return [_key(secret.strip()) for secret in secrets.split(",") if secret.strip()]


def _key(secret: str) -> bytes:
    try:
        if secret.startswith(SECRET):
            key = base64.b64decode(secret.removeprefix(SECRET), validate=True)
            if SECRET_BYTES[0] <= len(key) <= SECRET_BYTES[1]:
                return key
    except (binascii.Error, ValueError):
        pass
    raise ConfigurationError(
        "SD_WEBHOOK_SECRET: each secret is whsec_ and 24 to 64 bytes in base64, such as "
        'echo "whsec_$(openssl rand -base64 32)" prints',
        loc=("SD_WEBHOOK_SECRET",),
    )


def signatures(keys: Sequence[bytes], id: str, timestamp: int, body: bytes) -> str:
    """Return `webhook-signature`: `v1,` and HMAC-SHA256 (RFC 2104) in base64, for each key."""
    content = f"{id}.{timestamp}.".encode() + body
    signed = (hmac.new(key, content, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(one).decode()}" for one in signed)


def delay(tries: int) -> float:
    """Return the seconds until the next try.

    They double, and they are spread so that receivers do not get all tries at once.
    """
    return min(2.0 ** (tries - 1), LONGEST_S) * random.uniform(0.75, 1.25)


@dataclass(eq=False)
class Webhooks:
    """One thread that delivers what is due. Without a secret all of it waits, as none is signed.

    Args:
        document: Returns a job as clients see it.
        secrets: What SD_WEBHOOK_SECRET says; every secret in it signs.
        insecure: Whether plain http and private addresses are allowed.
        observe: It is called with "delivered", "retried" or "given_up".
    """

    store: Store
    document: Callable[[Job], dict[str, Any]]
    secrets: str
    insecure: bool = False
    observe: Observe = lambda outcome: None

    def __post_init__(self) -> None:
        self._keys = keys(self.secrets)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="webhooks", daemon=True
        )
        waiting = 0 if self._keys else self.store.webhooks_to_come()
        if waiting:
            logger.warning("%d webhooks wait for SD_WEBHOOK_SECRET, which is not set", waiting)

    def start(self) -> None:
        """Begin to deliver."""
        if self._keys:
            self._thread.start()

    def close(self) -> None:
        """Finish deliveries that are under way; the others wait for the next start."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    async def _serve(self) -> None:
        under_way: dict[asyncio.Task[None], Job] = {}
        async with fetch.session(self.insecure) as session:
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
        claim = self.store.claim_webhook
        try:
            return await asyncio.to_thread(claim, LEASE_S, busy_hosts, busy_owners)
        except Exception:
            logger.exception("webhooks could not be looked up; trying again")
            return None

    async def _deliver(self, session: aiohttp.ClientSession, job: Job) -> None:
        try:
            failure, final = await self._post(session, job)
            final = final or job.webhook_tries >= TRIES
            at = None if final else time.time() + delay(job.webhook_tries)
            await asyncio.to_thread(self.store.webhook_next, job, at, failure)
            self.observe("given_up" if final and failure else "retried" if failure else "delivered")
        except Exception:  # its lease runs out, and it is tried again
            logger.exception("webhook of job %s", job.id)

    async def _post(self, session: aiohttp.ClientSession, job: Job) -> tuple[str | None, bool]:
        """Send it once. Return what went wrong, or None, and whether no other try is wanted."""
        body = json.dumps(self._message(job)).encode()
        id, timestamp = f"msg_{job.folder}", int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(self._keys, id, timestamp, body),
            **({"traceparent": job.trace} if job.trace else {}),
        }
        try:
            url = fetch.check_url(job.webhook or "", "webhook", insecure=self.insecure)
            async with session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError, ValueError, InvalidInput) as error:
            logger.info("webhook of job %s, try %d: %s", job.id, job.webhook_tries, error)
            return "it could not be reached", False  # no details: they would show our network
        if 200 <= status < 300:
            return None, True
        logger.info("webhook of job %s, try %d: status %d", job.id, job.webhook_tries, status)
        return f"it answered {status}", status == GONE

    def _message(self, job: Job) -> dict[str, Any]:
        """Return the body in the form that the standard recommends."""
        document = self.document(job)
        return {
            "type": f"job.{job.state}",
            "timestamp": document["finished_at"],
            "data": document,
        }
