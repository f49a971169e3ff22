"""API keys."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.http.keys import Keys, main, new
from api.http.limits import Limit
from api.http.usage import Usage
from runnables.errors import (
    ConfigurationError,
    Forbidden,
    OverCapacity,
    Unauthorized,
    UnknownName,
)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "one"},
        {"x-api-key": "two"},
        {"authorization": "Bearer one"},
        {"authorization": "bearer two"},
        {"authorization": "Basic " + base64.b64encode(b"anyone:two").decode()},
    ],
)
def test_known_keys_are_let_in(headers: dict[str, str]) -> None:
    Keys("one, two").check(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": "three"},
        {"x-api-key": ""},
        {"authorization": "Basic one"},
        {"x-api-key": "\udcff"},
    ],
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


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("secret", "line 2: hash"),
        ("0" * 64 + " rate=0", "line 2: rate"),
        ("0" * 64 + " concurrency=many", "line 2: concurrency"),
        ("0" * 64 + " ratte=5", "line 2: ratte"),
        ("0" * 64 + " weight=0", "line 2: weight"),
        ("0" * 64 + " weight=1001", "line 2: weight"),
        ("0" * 64 + " concurrency=0", "line 2: concurrency"),
        ("0" * 64 + " quota=nan", "line 2: quota"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "keys").write_text(f"# ours\n{line}\n")
    with pytest.raises(ConfigurationError, match=complaint):
        Keys(str(tmp_path / "keys"))


def test_limits_are_each_keys_own(tmp_path: Path) -> None:
    made = [new("one", rate=2), new("two", concurrency=1)]
    (tmp_path / "keys").write_text("\n".join(key.line() for _, key in made))
    keys = Keys(str(tmp_path / "keys"))
    (first, one), (second, two) = (({"x-api-key": secret}, key) for secret, key in made)
    for _ in range(2):
        assert keys.spend(first) == one.hash
    with pytest.raises(OverCapacity) as caught:
        keys.spend(first)
    assert 1 <= caught.value.retry_after <= 60
    with keys.admitted(second) as owner:
        assert owner == two.hash
        with pytest.raises(OverCapacity, match="1 requests at a time"), keys.admitted(second):
            pass
    with keys.admitted(second):
        pass


def test_a_key_with_both_limits(tmp_path: Path) -> None:
    """What one limit refuses counts towards neither."""
    secret, key = new("one", rate=2, concurrency=1)
    (tmp_path / "keys").write_text(key.line())
    keys, headers, now = Keys(str(tmp_path / "keys")), {"x-api-key": secret}, [0.0]
    keys._limits[key.hash]._clock = lambda: now[0]
    with keys.admitted(headers):
        for _ in range(3):
            with pytest.raises(OverCapacity, match="at a time"), keys.admitted(headers):
                pass
    with keys.admitted(headers):
        pass
    for _ in range(3):
        with pytest.raises(OverCapacity, match="2 requests a minute"), keys.admitted(headers):
            pass
    now[0] = 60.0
    with keys.admitted(headers):
        pass


def test_a_place_is_free_again_after_an_error() -> None:
    limit = Limit(None, 1)
    for _ in range(2):
        with pytest.raises(ValueError), limit.occupied():
            raise ValueError


def test_any_minute_holds_no_more_than_the_rate() -> None:
    now = 0.0
    limit = Limit(3, None, clock=lambda: now)
    accepted: list[int] = []
    waits: list[tuple[int, int]] = []
    for second in range(300):
        now = float(second)
        try:
            limit.spend()
        except OverCapacity as error:
            waits.append((error.retry_after, accepted[-3] + 60 - second))
        else:
            accepted.append(second)
    assert all(told == true for told, true in waits)
    assert accepted == [minute * 60 + i for minute in range(5) for i in range(3)]


def test_the_command_makes_a_key_that_is_let_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--name", "mobile", "--rate", "60", "--concurrency", "1"]
    options += ["--quota", "50", "--models", "a,b", "--operator"]
    main(["new", *options])
    printed = capsys.readouterr().out
    secret, line = (text.partition(": ")[2] for text in printed.splitlines())
    assert line.endswith(" name=mobile rate=60 concurrency=1 quota=50.0 models=a,b operator=True")
    assert secret not in line
    (tmp_path / "keys").write_text(line)
    Keys(str(tmp_path / "keys")).check({"authorization": f"Bearer {secret}"})


@pytest.mark.parametrize(
    "wrong",
    [
        ["--rate", "0"],
        ["--rate", "-1"],
        ["--concurrency", "x"],
        ["--weight", "0"],
        ["--weight", "x"],
        ["--quota", "nan"],
        ["--quota", "-1"],
        ["--name", "two words"],
        ["--name", "x" * 101],
        ["--models", "#"],
    ],
)
def test_the_command_refuses(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["new", *wrong])
    assert ended.value.code == 2


def test_the_command_wants_to_be_named() -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2


def test_a_key_has_a_share_a_quota_and_models(tmp_path: Path) -> None:
    secret, key = new("one", weight=2.0, quota=10.0, models=("tiny", "large"))
    assert key.line().endswith("name=one weight=2.0 quota=10.0 models=tiny,large")
    (tmp_path / "keys").write_text(key.line())
    keys, headers = Keys(str(tmp_path / "keys"), tmp_path), {"x-api-key": secret}
    assert keys.caller(key.hash) == (key.hash, 2.0)
    keys.check_model(key.hash, "tiny")
    with pytest.raises(UnknownName, match="tiny, large") as refused:
        keys.check_model(key.hash, "huge")
    assert refused.value.loc == ("model",)
    keys.used(key.hash, 9.0)
    with keys.admitted(headers):
        pass
    keys.used(key.hash, 1.0)
    keys.close()
    again = Keys(str(tmp_path / "keys"), tmp_path)  # after a restart
    with pytest.raises(OverCapacity, match="10 cost units of this month"):
        again.spend(headers)
    with pytest.raises(OverCapacity), again.admitted(headers):
        pass


@pytest.mark.parametrize(
    "limits",
    ["rate=1 concurrency=1", "weight=0.001", "weight=1000", "quota=0.001"],
)
def test_limits_may_be_as_small_or_as_large(tmp_path: Path, limits: str) -> None:
    secret, key = new("one")
    (tmp_path / "keys").write_text(f"{key.hash} {limits}")
    with Keys(str(tmp_path / "keys"), tmp_path / "usage").admitted({"x-api-key": secret}):
        pass


def test_a_quota_that_nobody_keeps_is_none(tmp_path: Path) -> None:
    """Where there is no folder, as in a process that serves no requests."""
    secret, key = new("one", quota=1.0)
    (tmp_path / "keys").write_text(key.line())
    keys = Keys(str(tmp_path / "keys"))
    keys.used(key.hash, 5.0)
    with keys.admitted({"x-api-key": secret}):
        pass


def test_only_an_operators_key_passes_as_one(tmp_path: Path) -> None:
    (one, operator), (two, other) = new("one", operator=True), new("two")
    (tmp_path / "keys").write_text(f"{operator.line()}\n{other.line()}\n")
    keys = Keys(str(tmp_path / "keys"))
    keys.check_operator({"x-api-key": one})
    with pytest.raises(Forbidden):
        keys.check_operator({"x-api-key": two})
    with pytest.raises(Unauthorized):
        keys.check_operator({"x-api-key": "three"})
    Keys("").check_operator({})


def test_a_quota_begins_anew_with_each_month(tmp_path: Path) -> None:
    now = datetime(2027, 12, 31, 23, 0, tzinfo=UTC).timestamp()
    usage = Usage(tmp_path, clock=lambda: now)
    usage.add("key", 3.0)
    usage.add("key", 4.0)
    assert usage.of("key") == 7.0
    assert usage.of("other") == 0.0
    assert usage.month_left_s == 3600
    now += 3600
    assert usage.of("key") == 0.0
    assert usage.month_left_s == 31 * 86400


def test_callers_without_a_key_are_told_apart_by_address_where_that_is_set() -> None:
    assert Keys("").caller("", "10.0.0.1") == Keys("").caller("", "10.0.0.2")
    apart = Keys("", by_address=True)
    assert apart.caller("", "10.0.0.1") != apart.caller("", "10.0.0.2")
