"""Presigned addresses of objects in S3. Only botocore is imported: the queue shares this module."""

from __future__ import annotations

from typing import Any

from botocore.config import Config

#: What a client needs for addresses that work in every region: boto3's defaults presign for the
#: global endpoint and, in older regions, by SigV2, which newer buckets refuse.
CONFIG = Config(signature_version="s3v4", s3={"addressing_style": "virtual"})


def address(s3: Any, bucket: str, key: str, seconds: int) -> str:
    """Return the address of an object, valid for these seconds. It asks S3 nothing."""
    where = {"Bucket": bucket, "Key": key}
    made: str = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=seconds)
    return made
