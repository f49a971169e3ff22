"""API keys."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from api.keys import Keys
from runnables.errors import ConfigurationError, Unauthorized


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "one"},
        {"x-api-key": "two"},
        {"authorization": "Bearer one"},
        {"authorization": "bearer two"},
    ],
)
def test_known_keys_are_let_in(headers: dict[str, str]) -> None:
    Keys("one, two").check(headers)


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-api-key": "three"}, {"x-api-key": ""}, {"authorization": "Basic one"}],
)
def test_others_are_not(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        Keys("one,two").check(headers)


def test_a_file_of_hashes(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(hashlib.sha256(b"secret").hexdigest().upper() + "\n")
    keys = Keys(str(file))
    keys.check({"x-api-key": "secret"})
    with pytest.raises(Unauthorized):
        keys.check({"x-api-key": str(file)})


def test_none_configured_is_open_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    Keys("").check({})
    assert "open to everybody" in caplog.text


def test_an_empty_file_does_not_open_the_door(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n")
    with pytest.raises(ConfigurationError):
        Keys(str(tmp_path / "keys"))


def test_a_list_longer_than_a_file_name() -> None:
    Keys(",".join(f"key-{i}" for i in range(1000))).check({"x-api-key": "key-999"})
