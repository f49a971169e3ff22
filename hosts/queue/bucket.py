"""Objects that are written once: S3 alone decides which of several writers is the first."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from api.http import tracing

TAKEN = ("PreconditionFailed", "412")
UNDECIDED = ("ConditionalRequestConflict", "409")
WAITS_S = (0.05, 0.2, 0.5)  # before each further try


def put_once(
    s3: Any,
    bucket: str,
    key: str,
    data: bytes,
    kind: str,
    metadata: Mapping[str, str] | None = None,
) -> bool:
    """Write an object, unless there is one of this name. Return whether it was written.

    While another writer of the same object is at work S3 may decide nothing: then this tries again.

    Raises:
        ClientError: S3 refuses it, or has decided nothing for almost a second.
    """
    for wait_s in (*WAITS_S, None):
        try:
            with tracing.aws_call("S3", "PutObject"):
                s3.put_object(
                    Bucket=bucket,
                    Key=key,
                    Body=data,
                    ContentType=kind,
                    Metadata=dict(metadata or {}),
                    IfNoneMatch="*",
                )
            return True
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in TAKEN:
                return False
            if code not in UNDECIDED or wait_s is None:
                raise
        time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")
