"""A library keeps what was used last, within its budget."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from runnables.checkpoints.library import Library


@dataclass(frozen=True)
class Loaded:
    name: str
    nbytes: int = 10


@pytest.fixture
def read(tmp_path: Path) -> list[str]:
    """Return the names that were read, in this order; the folder has "a" to "d"."""
    for name in "abcd":
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    return []


def library(
    folder: Path, read: list[str], budget: float, pattern: str = "*.safetensors"
) -> Library[Loaded]:
    def load(name: str, path: Path) -> Loaded:
        read.append(name)
        return Loaded(name)

    field = ("loras", "SD_LORA_DIR")
    return Library(str(folder), pattern, load, field=field, budget=budget)


def test_the_least_recently_used_goes_and_not_the_oldest(tmp_path: Path, read: list[str]) -> None:
    one = library(tmp_path, read, budget=30)
    for name in "abcad":  # the last one needs room
        assert one.get(name).name == name
    assert one.nbytes == 30
    for name in "acd":
        one.get(name)
    assert read == [*"abcd"], "nothing is read twice but what has gone"
    one.get("b")
    assert read == [*"abcdb"]


def test_one_larger_than_the_budget_is_kept_alone(tmp_path: Path, read: list[str]) -> None:
    one = library(tmp_path, read, budget=5)
    for name in "aab":
        one.get(name)
    assert (one.nbytes, read) == (10, ["a", "b"])


def test_a_file_that_has_changed_is_read_again(tmp_path: Path, read: list[str]) -> None:
    one = library(tmp_path, read, budget=100)
    one.get("a")
    os.utime(tmp_path / "a.safetensors", (1, 1))
    one.get("a")
    assert read == ["a", "a"]


def test_a_file_put_in_place_with_the_same_time_is_read_and_the_old_one_goes(
    tmp_path: Path, read: list[str]
) -> None:
    one = library(tmp_path, read, budget=100)
    one.get("a")
    for name in "ab":
        os.utime(tmp_path / f"{name}.safetensors", (1, 1))
    one.get("a")
    (tmp_path / "b.safetensors").replace(tmp_path / "a.safetensors")
    one.get("a")
    assert (read, one.nbytes) == (["a"] * 3, 10)


def test_every_file_of_a_folder_counts(tmp_path: Path) -> None:
    read: list[str] = []
    (tmp_path / "one").mkdir()
    for name in ("config.json", "weights.safetensors"):
        (tmp_path / "one" / name).write_bytes(b"")
    one = library(tmp_path, read, 100, "*/config.json")
    one.get("one")
    one.get("one")
    (tmp_path / "one" / "weights.safetensors").write_bytes(b"others")
    one.get("one")
    assert read == ["one", "one"]
