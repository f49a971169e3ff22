"""These tests check that the number of threads follows the cores that are free."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from runnables.accelerators.cpu import threads
from runnables.accelerators.cpu.device import Cpu
from runnables.accelerators.cpu.threads import Threads, others_seconds, usable_cores
from runnables.settings import Settings


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Machine:
    """A machine of four cores on which other programs use as many as a test says."""

    def __init__(self) -> None:
        self.now = self.used = 0.0
        self.threads = Threads(4, lambda: self.used, lambda: self.now)

    def after(self, seconds: float, others: float) -> int:
        """Return the threads after so long with so many cores taken by others."""
        self.now += seconds
        self.used += seconds * others
        self.threads.adapt()
        return torch.get_num_threads()


def test_threads_follow_what_others_leave() -> None:
    machine = Machine()
    assert machine.after(0.2, others=0) == 4
    assert machine.after(0.2, others=1) == 3
    assert machine.after(0.2, others=2.4) == 2
    assert machine.after(0.2, others=4) == 1  # never none


def test_a_pause_of_others_is_not_their_end() -> None:
    """Another service pauses between two images: two threads would meet its next one."""
    machine = Machine()
    machine.after(0.2, others=3)
    for _ in range(4):
        assert machine.after(0.2, others=0.3) == 1
    assert machine.after(0.4, others=0.3) == 4  # a little company is none


@pytest.mark.parametrize("seconds", [2.0, 60.0])
def test_what_others_did_before_a_long_step_or_an_idle_time_is_past(seconds: float) -> None:
    machine = Machine()
    for _ in range(10):
        machine.after(0.2, others=3)
    assert machine.after(seconds, others=0) == 4


def test_times_too_short_to_measure_change_nothing() -> None:
    machine = Machine()
    machine.after(0.2, others=0)
    assert machine.after(0.01, others=4) == 4
    assert machine.after(0.2, others=4) == 1  # the short time is part of the next


def test_counts_that_fall_behind_give_no_more_than_all_cores() -> None:
    assert Machine().after(0.2, others=-0.5) == 4


def test_a_number_that_the_operator_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.Threads, "adapt", lambda self: pytest.fail("adapted"))
    Cpu(Settings(threads=1)).before_step()


def test_what_another_program_uses_is_counted() -> None:
    before = others_seconds()
    subprocess.run(
        [sys.executable, "-c", "import time\nwhile time.process_time() < 0.6: pass"], check=True
    )
    assert others_seconds() - before > 0.5


def test_what_this_program_uses_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the machine's busy time is taken from a fixed count, so that others do not disturb."""
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [])
    before = others_seconds()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert others_seconds() - before == pytest.approx(-0.2, abs=0.1)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({}, 8),
    ],
)
def test_a_containers_quota_limits_the_cores(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores() == cores
