"""The table of files that share a server is complete, and names what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.order import BENTO, FIRST, RAY

ROOT = Path(__file__).resolve().parents[1]


def test_every_file_that_uses_a_shared_server_is_named(request: pytest.FixtureRequest) -> None:
    users: dict[str, set[str]] = {"tests": set(), "tests/hosts/ray": set()}
    for item in request.session.items:
        if not isinstance(item, pytest.Function):
            continue
        for fixture in item._fixtureinfo.name2fixturedefs.get("server", ())[-1:]:
            if fixture.baseid in users:
                users[fixture.baseid].add(item.nodeid.split("::", 1)[0])
    assert users["tests"] <= {*BENTO}
    assert users["tests/hosts/ray"] <= {*RAY}


def test_every_file_that_is_named_is_there() -> None:
    named = {*BENTO, *RAY, *FIRST} - {"bento", "ray"}
    assert [name for name in named if not (ROOT / name).is_file()] == []
