"""The garbage collector is out of the way of a start, and back afterwards."""

from __future__ import annotations

import gc

import pytest

from runnables import collector


def test_it_runs_rarely_inside_and_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="failed"), collector.lasting():
        assert gc.get_threshold()[0] > before[0]
        raise ValueError("the start failed")
    assert gc.get_threshold() == before and gc.isenabled()


def test_only_the_first_start_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "_frozen", False)
    gc.unfreeze()
    with collector.lasting():
        first: list[list[int]] = [[] for _ in range(10_000)]
    frozen = gc.get_freeze_count()
    assert frozen > len(first)
    with collector.lasting():
        second: list[list[int]] = [[] for _ in range(10_000)]
    assert gc.get_freeze_count() <= frozen, f"{len(second)} objects of a later start were frozen"
    gc.unfreeze()
