"""The fleet of the shipped ScaledObject neither swings at constant load nor drops busy pods."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest

from deploy.check.autoscaling import simulate
from deploy.check.manifests import OVERLAYS, render

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
#: Requests a second that one pod can serve: a batch of 4, each request taking 10 s.
EACH = 0.4


@pytest.fixture(scope="module")
def scaled() -> dict[str, Any]:
    (found,) = [one for one in render(OVERLAYS / "gpu") if one["kind"] == "ScaledObject"]
    found["spec"]["maxReplicaCount"] = 20
    return found


@pytest.mark.parametrize("share", [0.9, 0.95, 0.99])
def test_constant_load_keeps_the_fleet(scaled: dict[str, Any], share: float) -> None:
    run = simulate(scaled, lambda _: 8 * EACH * share, seconds=4 * 3600, pods=8)
    assert {7, 8, 9} >= set(run.pods)
    assert max(run.waiting) <= 8
    assert run.busy_removed == []


def test_a_burst_is_served_and_no_busy_pod_is_removed(scaled: dict[str, Any]) -> None:
    def rate(now: int) -> float:
        return 14 * EACH if 1800 <= now < 3600 else 2 * EACH

    run = simulate(scaled, rate, seconds=7200, pods=2)
    assert max(run.pods) == 20 and run.pods[-1] <= 3
    assert max(run.waiting[3000:]) <= 8, "the burst is not caught up with"
    assert run.busy_removed == []


def test_waiting_requests_alone_make_it_swing(scaled: dict[str, Any]) -> None:
    """What was shipped before; the simulation must be able to tell."""
    waiting_alone = copy.deepcopy(scaled)
    del waiting_alone["spec"]["advanced"]["scalingModifiers"]
    run = simulate(waiting_alone, lambda _: 8 * EACH * 0.9, seconds=4 * 3600, pods=8)
    assert min(run.pods) < 7 and max(run.pods) == 20
    assert max(run.waiting) > 90 and run.busy_removed
