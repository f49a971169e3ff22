"""Images that are kept in an S3 bucket, each behind a presigned address that expires.

The objects stay: a lifecycle rule of the bucket removes them.
"""

from __future__ import annotations

import logging
import secrets

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from api.http import presigned
from runnables.errors import NotReady
from runnables.settings import S3_FOLDER

logger = logging.getLogger(__name__)
#: a caller waits, so that a bucket that does not answer is given up after half a minute
PATIENCE = Config(
    connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2}
)


class Bucket:
    """A folder of a bucket.

    Args:
        where: `s3://bucket/prefix`, as `SD_URLS_S3` has it.
        seconds: How long an address is valid.
    """

    def __init__(self, where: str, seconds: float) -> None:
        found = S3_FOLDER.fullmatch(where)
        assert found, "the settings have checked it"
        self._bucket, self._prefix = found[1], (found[2] or "").strip("/")
        self._seconds = int(seconds)
        self._s3 = boto3.client("s3", config=presigned.CONFIG.merge(PATIENCE))

    def keep(self, data: bytes, kind: str) -> str:
        """Put an image's file into the bucket, and return its address.

        Raises:
            NotReady: The bucket does not take it.
        """
        name = f"{secrets.token_hex(16)}.{kind}"
        key = f"{self._prefix}/{name}".lstrip("/")
        try:
            self._s3.put_object(
                Bucket=self._bucket, Key=key, Body=data, ContentType=f"image/{kind}"
            )
            return presigned.address(self._s3, self._bucket, key, self._seconds)
        except (BotoCoreError, ClientError) as error:
            logger.error("SD_URLS_S3 cannot be used: %s", error)
            raise NotReady(
                "the bucket of images cannot be used now", loc=("response_format",)
            ) from error
