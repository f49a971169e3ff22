"""Signed addresses of images: they expire, and nothing else opens them."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from api.http.links import Links
from api.http.signatures import KEY
from runnables.errors import NotReady, UnknownName


def parts(address: str) -> tuple[str, dict[str, str]]:
    name, _, query = address.partition("?")
    return name, dict(parse_qsl(query))


def test_another_process_answers_the_address(tmp_path: Path) -> None:
    address = Links(tmp_path / "links", 60).keep(b"image", "png")
    assert Links(tmp_path / "links", 60).find(*parts(address)).read_bytes() == b"image"


def test_a_changed_address_is_unknown(tmp_path: Path) -> None:
    links = Links(tmp_path, 60)
    (name, query), (other, _) = (parts(links.keep(b"image", "png")) for _ in range(2))
    later = str(int(query["expires"]) + 1)
    for wrong in (
        (other, query),
        (name, {}),
        (name, {**query, "expires": later}),
        (name, {**query, "expires": "x"}),
        (name, {**query, "signature": "é"}),
        (f"../{name}", query),
        (KEY, query),
    ):
        with pytest.raises(UnknownName):
            links.find(*wrong)
    with pytest.raises(UnknownName):
        Links(tmp_path / "none", 60).find(name, query)


def test_addresses_expire_and_their_files_go(tmp_path: Path) -> None:
    links = Links(tmp_path, 60)
    name, query = parts(links.keep(b"old", "jpeg"))
    later = time.time() + 61
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: later)
        with pytest.raises(UnknownName, match="expired"):
            links.find(name, query)
    long_ago = time.time() - 61
    os.utime(tmp_path / name, (long_ago, long_ago))
    kept = parts(Links(tmp_path, 60).keep(b"new", "webp"))[0]
    assert {path.name for path in tmp_path.iterdir()} == {KEY, kept}


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = Links(tmp_path, 60)
    address = links.keep(b"image", "png")

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NotReady, match="No space left") as told:
        links.keep(b"image", "png")
    assert told.value.loc == ("response_format",)
    assert {path.name for path in tmp_path.iterdir()} == {KEY, parts(address)[0]}
