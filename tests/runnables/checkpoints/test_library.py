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


def library(folder: Path, read: list[str], budget: float) -> Library[Loaded]:
    def load(name: str, path: Path) -> Loaded:
        read.append(name)
        return Loaded(name)

    field = ("loras", "SD_LORA_DIR")
    return Library(str(folder), "*.safetensors", load, field=field, budget=budget)


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
