"""The bucket: every object is written once, and the first manifest is the truth."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from hosts.queue import completion, keys
from hosts.queue.bucket import put_once
from hosts.queue.completion import Manifest
from hosts.queue.messages import Task

MISSING = ("NoSuchKey", "NotFound", "404")


class Store:
    """Results of tasks in one bucket."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self.s3, self.bucket = s3, bucket

    def url(self, key: str) -> str:
        """`s3://` address."""
        return f"s3://{self.bucket}/{key}"

    def manifest(self, task: Task) -> Manifest | None:
        """Return the outcome of the task, if it has ended."""
        try:
            found = self.s3.get_object(Bucket=self.bucket, Key=keys.manifest(task))
            return completion.load(found["Body"].read())
        except ClientError as error:
            if error.response["Error"]["Code"] in MISSING:
                return None
            raise

    def is_cancelled(self, task: Task) -> bool:
        """Return whether somebody has cancelled the task."""
        try:
            key = keys.cancelled(task.metadata.prefix, task.metadata.id)
            self.s3.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in MISSING:
                return False
            raise
        return True

    def excuse(self, message: str, received: int) -> None:
        """Remember that this delivery was handed back through no fault of the task."""
        self._put(keys.handed_back(message, received), b"", "text/plain", {})

    def excuses(self, message: str) -> int:
        """Deliveries of a message that were handed back."""
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=keys.handed_back(message))
        return int(listed["KeyCount"])

    def put_image(self, task: Task, number: int, data: bytes, trace: dict[str, str]) -> str:
        """Store an image; where there is one already, it is the same one. Returns its address."""
        key = keys.image(task, number)
        self._put(key, data, "image/png", trace)
        return self.url(key)

    def put_manifest(self, task: Task, manifest: Manifest) -> Manifest:
        """Store it, unless the task has ended already. Returns the one that counts."""
        data = manifest.model_dump_json(indent=1).encode()
        trace = {"traceparent": manifest.traceparent} if manifest.traceparent else {}
        if self._put(keys.manifest(task), data, "application/json", trace):
            return manifest
        return self.manifest(task) or manifest

    def _put(self, key: str, data: bytes, kind: str, metadata: dict[str, str]) -> bool:
        """Return whether it was written; False when there is one already."""
        return put_once(self.s3, self.bucket, key, data, kind, metadata)
