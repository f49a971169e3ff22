"""These tests check the memory that a CPU reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnables.accelerators.cpu import device as cpu
from runnables.accelerators.cpu import memory
from runnables.accelerators.cpu.device import Cpu
from runnables.settings import Settings

GIB = 1 << 30


def test_a_mark_that_fell_is_no_negative_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux's mark may fall by some pages; a negative rate would refuse every image."""
    marks = iter([1000.0, 996.0, 1000.0, 1002.0])
    monkeypatch.setattr(cpu, "figure", lambda file, name: next(marks))
    accelerator = Cpu(Settings())
    assert accelerator.measure(lambda: "drawn") == ("drawn", 0.0)
    assert accelerator.measure(lambda: "drawn") == ("drawn", 2048.0)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "max", "memory.current": f"{GIB}"}, 90 * GIB),
        ({"memory.max": f"{8 * GIB}", "memory.current": f"{7 * GIB}"}, GIB),
        (
            {
                "memory.max": f"{8 * GIB}",
                "memory.current": f"{7 * GIB}",
                "memory.stat": f"file {5 * GIB}\nfile_mapped {GIB}\nshmem {GIB}\n"
                f"inactive_file {3 * GIB}\nactive_file {GIB}",
            },
            4 * GIB,
        ),
        (
            {
                "memory/memory.limit_in_bytes": f"{8 * GIB}",
                "memory/memory.usage_in_bytes": f"{7 * GIB}",
                "memory/memory.stat": f"inactive_file 0\nactive_file 0\ntotal_mapped_file {GIB}\n"
                f"total_inactive_file {3 * GIB}\ntotal_active_file {GIB}",
            },
            4 * GIB,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": f"{GIB}",
            },
            90 * GIB,
        ),
        ({}, 90 * GIB),
    ],
)
def test_a_containers_limit_leaves_what_is_not_used_or_only_kept_of_files(
    files: dict[str, str], free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four GiB of files on the kernel's lists, one holds weights that are in use."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "meminfo").write_text(f"MemFree: 1024 kB\nMemAvailable: {90 * GIB // 1024} kB\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    assert Cpu(Settings()).free_bytes() == free
