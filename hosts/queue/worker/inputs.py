"""Input images of tasks: from S3, from hosts the operator allows, or in the task itself."""

from __future__ import annotations

import asyncio
from typing import Any

from botocore.exceptions import ClientError
from PIL.Image import Image

from api.http.fetch import Fetcher, Unavailable
from api.webui import pictures
from hosts.queue.messages import Task
from hosts.queue.webui import Generated
from runnables.errors import InvalidInput, PayloadTooLarge
from runnables.images import codec
from runnables.settings import Settings
from runnables.ticket import Inputs

MAX_KEY = 1024  # bytes of an object's key; S3 knows no longer ones


class Unreachable(Exception):
    """The image could not be had just now."""


class Reader:
    """Reads images named by tasks.

    Args:
        buckets: those that may be read from.
    """

    def __init__(self, s3: Any, buckets: set[str], settings: Settings) -> None:
        self._s3, self._buckets = s3, buckets
        self._max_pixels = settings.max_pixels
        self._fetcher = Fetcher(settings)

    def of(self, task: Task) -> list[Inputs]:
        """The images that a task starts from; several are worked on one after another.

        Raises:
            InvalidInput: one may not be read, is missing, too large or no image.
            Unreachable: try again later.
        """
        content = task.content
        sent = [self._image(link, content.links_field) for link in content.links()]
        if not isinstance(content, Generated):
            return [Inputs(image) for image in sent]
        controls = [
            self._image(text, "control") if (text := unit.source()) else None
            for unit in content.units
        ]
        mask = self._mask(content.mask) if content.mask else None
        image = next(iter(sent), None)
        return [pictures.prepared(content, image, mask, content.units, controls)]

    def _image(self, link: str, field: str) -> Image:
        """RGB."""
        return codec.decode(self._read(link, field), max_pixels=self._max_pixels, field=field)

    def _mask(self, link: str) -> Image:
        """Return the image in grey."""
        return codec.decode_mask(self._read(link, "mask"), max_pixels=self._max_pixels, alpha=True)

    def _read(self, link: str, field: str) -> bytes:
        if link.startswith("s3://"):
            return self._from_s3(link, field)
        if "://" in link[:16]:
            return self._from_web(link, field)
        return codec.from_base64(link, field)

    def _from_s3(self, link: str, field: str) -> bytes:
        bucket, _, key = link.removeprefix("s3://").partition("/")
        if bucket not in self._buckets or not key:
            raise InvalidInput(f"{field}: images are not read from {bucket}", loc=(field,))
        if len(key.encode()) > MAX_KEY:
            raise InvalidInput(f"{field}: the key is over {MAX_KEY} bytes", loc=(field,))
        try:
            found = self._s3.get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("NoSuchKey", "404", "NoSuchBucket"):
                raise InvalidInput(f"{field}: there is no {link}", loc=(field,)) from error
            if code in ("AccessDenied", "403", "InvalidObjectState"):
                raise InvalidInput(
                    f"{field}: {link} cannot be read: {code}", loc=(field,)
                ) from error
            raise
        if found["ContentLength"] > self._fetcher.max_bytes:
            megabytes = self._fetcher.max_bytes / 1e6
            raise PayloadTooLarge(f"{field} is larger than {megabytes:g} MB", loc=(field,))
        data: bytes = found["Body"].read()
        return data

    def _from_web(self, link: str, field: str) -> bytes:
        try:
            return asyncio.run(self._fetcher.get(link, field))
        except Unavailable as error:
            raise Unreachable(error.message) from error
