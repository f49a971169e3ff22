"""The status of a task, read from the bucket: there is no other store to disagree with it."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError
from pydantic import TypeAdapter, ValidationError

from api.http import presigned
from hosts.queue import completion, keys
from hosts.queue.front.publish import Front
from hosts.queue.messages import Name, Prefix
from runnables.errors import Conflict, InvalidInput, UnknownName

_NAME, _PREFIX = TypeAdapter[str](Name), TypeAdapter[str](Prefix)


def describe(door: Front, id: str, prefix: str) -> dict[str, Any]:
    """`status` (queued, completed, failed, cancelled) and, once finished, `images`: URLs to fetch.

    Raises:
        UnknownName: no such task.
    """
    claim = _claim(door, id, prefix)
    answer: dict[str, Any] = {"id": id, "output_location": door.location(prefix, id)}
    stored = _get(door, claim["manifest"])
    if stored is None:
        return {**answer, "status": "queued"}
    manifest = completion.load(stored)
    answer |= manifest.model_dump(exclude_none=True, exclude={"worker", "traceparent"})
    return {**answer, "images": [_link(door, url) for url in manifest.image_url]}


def cancel(door: Front, id: str, prefix: str) -> dict[str, Any]:
    """Cancel a task that has not ended.

    Raises:
        UnknownName: no such task.
        Conflict: it is finished.
    """
    claim = _claim(door, id, prefix)
    if _get(door, claim["manifest"]) is not None:
        raise Conflict(f"the task {id} is finished", loc=("id",))
    door.s3.put_object(Bucket=door.settings.bucket, Key=keys.cancelled(prefix, id), Body=b"")
    return {"id": id, "status": "cancelling"}


def _claim(door: Front, id: str, prefix: str) -> dict[str, Any]:
    try:
        _NAME.validate_python(id)
        _PREFIX.validate_python(prefix)
    except ValidationError as error:
        raise InvalidInput("id or prefix is malformed", loc=("id",)) from error
    stored = _get(door, keys.claim(prefix, id))
    if stored is None:
        raise UnknownName(f"there is no task {id}", loc=("id",))
    claim: dict[str, Any] = json.loads(stored)
    return claim


def _get(door: Front, key: str) -> bytes | None:
    try:
        body: bytes = door.s3.get_object(Bucket=door.settings.bucket, Key=key)["Body"].read()
        return body
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return None
        raise


def _link(door: Front, url: str) -> str:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return presigned.address(door.s3, bucket, key, door.settings.link_s)
