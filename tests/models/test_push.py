"""A model goes to a bucket whole or not at all, and a push that was cut off goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from models import bucket
from models.__main__ import main
from models.bucket import INDEX, Location
from runnables.checkpoints import manifest
from runnables.checkpoints.sources import Sources

WHERE = Location.of("s3://models-of-ours/all/")


class Cut(Exception):
    """The connection is gone."""


class Line:
    """S3 by a line that is cut at a number of uploads, which it notes."""

    def __init__(self, s3: Any, uploads: int | None = None) -> None:
        self.s3, self.left = s3, uploads
        self.keys: list[str] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.s3, name)
        if name not in ("put_object", "upload_part"):
            return call

        def upload(**given: Any) -> Any:
            if self.left == 0:
                raise Cut
            self.left = None if self.left is None else self.left - 1
            self.keys.append(given["Key"].removeprefix("all/sd/"))
            return call(**given)

        return upload


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=WHERE.bucket)
        yield client


@pytest.fixture
def folder(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    made = tmp_path / "sd"
    shutil.copytree(tiny_model("sd1"), made)
    manifest.write(made, source="tiny")
    return made


def here(s3: Any, into: Path) -> set[str]:
    """Bring the bucket's folder to a disk, as the mount shows it; the models served from it."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    for one in s3.list_objects_v2(Bucket=WHERE.bucket, Prefix="all/").get("Contents", []):
        path = into / one["Key"].removeprefix("all/")
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(WHERE.bucket, one["Key"], str(path))
    return set(Sources({}, str(into), "default"))


def test_the_manifest_is_last_and_nothing_is_sent_twice(s3: Any, folder: Path) -> None:
    line = Line(s3)
    assert bucket.push(folder, WHERE, line) == len(line.keys) > 5
    assert line.keys[-1] == manifest.NAME and line.keys.index(INDEX) >= len(line.keys) - 3
    assert bucket.push(folder, WHERE, line) == 0
    assert [(name, state) for name, _, state in bucket.listed(WHERE, s3)] == [("sd", "whole")]


def test_a_push_that_is_cut_off_serves_nothing_and_goes_on(
    s3: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PART_BYTES", 5 << 20)  # S3 takes no smaller parts
    (folder / "unet" / "large.bin").write_bytes(bytes(range(256)) * (12 << 12))  # three parts
    manifest.write(folder, source="tiny")
    whole = Line(s3)
    sent = []
    for cut in (2, 5, 3):
        line = Line(s3, cut)
        with pytest.raises(Cut):
            bucket.push(folder, WHERE, line)
        sent += line.keys
        assert here(s3, tmp_path / "mount") == set()
        assert all(state != "whole" for *_, state in bucket.listed(WHERE, s3))
    bucket.push(folder, WHERE, whole)
    sent += whole.keys
    assert sent.count("unet/large.bin") == 3, "a part was sent twice"
    assert len(sent) - 2 == len({*sent}), "a file was sent twice"
    assert here(s3, tmp_path / "mount") == {"sd"}
    assert manifest.verify(tmp_path / "mount" / "sd")


def test_a_name_keeps_its_model(s3: Any, folder: Path) -> None:
    bucket.push(folder, WHERE, s3)
    (folder / INDEX).write_text((folder / INDEX).read_text() + "\n")
    manifest.write(folder, source="tiny")
    with pytest.raises(bucket.PushFailed, match="a name of its own"):
        bucket.push(folder, WHERE, s3)


def test_a_damaged_model_is_not_pushed(s3: Any, folder: Path) -> None:
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(manifest.Damaged):
        bucket.push(folder, WHERE, s3)
    assert not s3.list_objects_v2(Bucket=WHERE.bucket).get("Contents")


def test_the_command(s3: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--folder", str(folder.parent)]
    assert main([*own, "push", "sd", "s3://models-of-ours/all/"]) == 0
    assert main([*own, "list", "s3://models-of-ours/all/"]) == 0
    assert "whole" in capsys.readouterr().out
    for arguments, words in (
        (["push", "sd", "s3://nowhere-at-all/"], "there is no bucket nowhere-at-all"),
        (["push", "sd", "bucket"], "write s3://bucket/folder/"),
        (["push", "none", "s3://models-of-ours/"], "is no model"),
    ):
        assert main([*own, *arguments]) == 1
        assert words in capsys.readouterr().err
