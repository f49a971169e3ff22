"""The start of Ray by `python -m hosts.ray`."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import ray

from hosts.ray.__main__ import STARTS, _parser, _start_ray

SLOW = "The current node timed out during startup. This could happen because some of the raylet..."


def test_ray_that_was_too_slow_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[subprocess.Popen[bytes]] = []

    def init(**_: Any) -> None:
        if not left:
            left.append(subprocess.Popen(["sleep", "300"]))
            raise Exception(SLOW)  # as ray/_private/node.py raises it

    monkeypatch.setattr(ray, "init", init)
    _start_ray(_parser().parse_args([]))
    assert left[0].wait(30) < 0


@pytest.mark.parametrize(("told", "tries"), [(SLOW, STARTS), ("no such address", 1)])
def test_what_does_not_help_is_told(monkeypatch: pytest.MonkeyPatch, told: str, tries: int) -> None:
    tried = []

    def init(**options: Any) -> None:
        tried.append(options)
        raise Exception(told)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(Exception, match=told[:20]):
        _start_ray(_parser().parse_args([]))
    assert len(tried) == tries


def test_rays_own_words_for_it() -> None:
    from inspect import getsource

    from ray._private import node

    assert "timed out during startup" in " ".join(getsource(node).split())
