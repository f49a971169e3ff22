"""Models in an S3 bucket: pushed file by file, the manifest last, and listed.

A model is served from a mounted bucket once its model_index.json is there, and every other file is
pushed before that one: so half a model is never served. A push that was cut off goes on where it
stopped: files that are there are skipped, and so are the parts of a large file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from runnables.checkpoints import manifest
from runnables.settings import S3_FOLDER

PART_BYTES = 64 << 20
INDEX = "model_index.json"


class PushFailed(Exception):
    """The bucket or the name cannot take this model; the message says why."""


@dataclass(frozen=True)
class Location:
    """A bucket and a folder in it, without slashes around it."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, uri: str) -> Location:
        """Read `s3://bucket/folder/`.

        Raises:
            ValueError: it is something else.
        """
        found = S3_FOLDER.fullmatch(uri)
        if not found:
            raise ValueError(f"{uri} is no place in S3; write s3://bucket/folder/")
        return cls(found[1], (found[2] or "").strip("/"))

    def key(self, *parts: str) -> str:
        """The key of something in the folder."""
        return "/".join(part for part in (self.prefix, *parts) if part)


def push(folder: Path, where: Location, s3: Any) -> int:
    """Upload a model; return how many of its files were not there yet.

    Raises:
        PushFailed: another model has this name there, or there is no such bucket.
        Damaged: the folder is not what its manifest says.
    """
    if not (folder / INDEX).is_file():
        raise PushFailed(f"{folder} is no model: it has no {INDEX}")
    if not manifest.verify(folder):
        manifest.write(folder, source=folder.name)
    files = (manifest.read(folder) or {})["files"]
    try:
        stored = _stored(where.key(folder.name, manifest.NAME), where, s3)
        if stored is not None and stored["files"] != files:
            raise PushFailed(
                f"{folder.name} is another model there; replicas may be reading it: "
                "push this one under a name of its own"
            )
        names = sorted(files, key=lambda name: name == INDEX)  # the index after all others
        sent = sum(_send(folder, name, files[name]["sha256"], where, s3) for name in names)
        free = sorted(name for name in manifest.FREE - {manifest.NAME} if (folder / name).is_file())
        for name in [*free, manifest.NAME]:
            hashed = manifest.sha256(folder / name)
            sent += _send(folder, name, hashed, where, s3)
        return sent
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchBucket":
            raise PushFailed(f"there is no bucket {where.bucket}") from error
        raise


def listed(where: Location, s3: Any) -> Iterator[tuple[str, int, str]]:
    """Every model of the folder: its name, its bytes, and `whole` or what it lacks."""
    there: dict[str, dict[str, int]] = {}
    start = f"{where.prefix}/" if where.prefix else ""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=where.bucket, Prefix=start):
        for one in page.get("Contents", []):
            name, _, rest = one["Key"].removeprefix(start).partition("/")
            if rest:
                there.setdefault(name, {})[rest] = one["Size"]
    for name, sizes in sorted(there.items()):
        yield name, sum(sizes.values()), _state(name, sizes, where, s3)


def _state(name: str, sizes: dict[str, int], where: Location, s3: Any) -> str:
    stored = _stored(where.key(name, manifest.NAME), where, s3)
    if stored is None:
        return "not pushed completely"
    wrong = [file for file, told in stored["files"].items() if sizes.get(file) != told["size"]]
    return f"damaged: {wrong[0]} is missing or short" if wrong else "whole"


def _stored(key: str, where: Location, s3: Any) -> dict[str, Any] | None:
    try:
        body = s3.get_object(Bucket=where.bucket, Key=key)["Body"].read()
        found: dict[str, Any] = json.loads(body)
        return found
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return None
        raise


def _send(folder: Path, name: str, sha256: str, where: Location, s3: Any) -> bool:
    """Upload one file; return False where it is there already, by size and checksum."""
    path, key = folder / name, where.key(folder.name, name)
    size = path.stat().st_size
    try:
        head = s3.head_object(Bucket=where.bucket, Key=key)
        if head["ContentLength"] == size and head["Metadata"].get("sha256") == sha256:
            return False
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
            raise
    given = {"Bucket": where.bucket, "Key": key, "Metadata": {"sha256": sha256}}
    if size > PART_BYTES:
        _send_parts(path, given, s3)
    else:
        data = path.read_bytes()
        s3.put_object(**given, Body=data, ContentMD5=_md5(data))
    return True


def _send_parts(path: Path, given: dict[str, Any], s3: Any) -> None:
    """Upload in parts, without those that an earlier push has brought; S3 checks each one's MD5.

    In a bucket with keys of KMS a part's ETag is not its MD5, and all parts are sent again.
    """
    own = {name: given[name] for name in ("Bucket", "Key")}
    begun = s3.list_multipart_uploads(Bucket=own["Bucket"], Prefix=own["Key"]).get("Uploads", [])
    ids = [one["UploadId"] for one in begun if one["Key"] == own["Key"]]
    own["UploadId"] = ids[0] if ids else s3.create_multipart_upload(**given)["UploadId"]
    pages = s3.get_paginator("list_parts").paginate(**own)
    there = {one["PartNumber"]: one["ETag"] for page in pages for one in page.get("Parts", [])}
    parts = []
    with path.open("rb") as file:
        for number, data in enumerate(iter(lambda: file.read(PART_BYTES), b""), start=1):
            digest = _md5(data)
            etag = there.get(number, "")
            if etag.strip('"') != base64.b64decode(digest).hex():
                sent = s3.upload_part(**own, PartNumber=number, Body=data, ContentMD5=digest)
                etag = sent["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
    s3.complete_multipart_upload(**own, MultipartUpload={"Parts": parts})


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
