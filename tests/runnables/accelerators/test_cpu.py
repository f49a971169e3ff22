"""These tests check the memory that a CPU reports."""

from __future__ import annotations

import pytest

from runnables.accelerators.cpu import device as cpu
from runnables.accelerators.cpu.device import Cpu
from runnables.settings import Settings


def test_a_mark_that_fell_is_no_negative_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux's mark may fall by some pages; a negative rate would refuse every image."""
    marks = iter([1000.0, 996.0, 1000.0, 1002.0])
    monkeypatch.setattr(cpu, "_kilobytes", lambda file, name: next(marks))
    accelerator = Cpu(Settings())
    assert accelerator.measure(lambda: "drawn") == ("drawn", 0.0)
    assert accelerator.measure(lambda: "drawn") == ("drawn", 2048.0)
