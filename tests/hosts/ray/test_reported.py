"""What the ingress knows about models, without Ray."""

from __future__ import annotations

from typing import Any

import pytest

from hosts.ray.reported import Reported


def report(
    *loaded: str, names: tuple[str, ...] = ("small", "large"), default: bool = True
) -> list[dict[str, Any]]:
    """What a replica reports that has loaded these, and the default model or not."""
    first = {"name": "embedded", "loaded": default, "height": 128}
    return [first, *(described(name, name in loaded) for name in names)]


def described(name: str, loaded: bool) -> dict[str, Any]:
    return {"name": name, "loaded": loaded, **({"height": 64} if loaded else {})}


@pytest.fixture
def reported() -> Reported:
    reported = Reported()
    reported.hear("a", report())
    return reported


def loaded(reported: Reported) -> list[bool]:
    return [one["loaded"] for one in reported.describe()]


def test_a_model_is_loaded_while_a_replica_reports_so(reported: Reported) -> None:
    assert loaded(reported) == [True, False, False]
    reported.hear("a", report("small"))
    reported.hear("b", report("large"))
    assert loaded(reported) == [True, True, True]
    reported.hear("b", report())
    assert loaded(reported) == [True, True, False]
    assert reported.describe()[2]["height"] == 64, "what was reported once is still true"


def test_the_default_is_loaded_where_a_replica_has_it(reported: Reported) -> None:
    reported.hear("a", report(default=False))
    assert loaded(reported) == [False, False, False]
    assert reported.describe()[0]["height"] == 128
    reported.hear("b", report())
    assert loaded(reported) == [True, False, False]


def test_what_a_replica_had_that_is_gone_is_forgotten(reported: Reported) -> None:
    reported.hear("a", report("small"))
    reported.hear("b", report("large", default=False))
    reported.keep({"b"})
    assert loaded(reported) == [False, False, True]
    reported.keep(())
    assert loaded(reported) == [False, False, False]


def test_a_model_that_arrives_in_the_folder_is_listed(reported: Reported) -> None:
    reported.hear("a", report(names=("small", "large", "new")))
    assert [one["name"] for one in reported.describe()] == ["embedded", "small", "large", "new"]


@pytest.mark.parametrize(
    ("model", "further"), [(None, ""), ("embedded", ""), ("large", "large"), ("unknown", "")]
)
def test_ray_looks_for_a_replica_with_a_further_model(
    reported: Reported, model: str | None, further: str
) -> None:
    assert reported.further(model) == further
