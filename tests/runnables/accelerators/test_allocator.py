"""malloc keeps what is freed, as page faults in a process of its own show."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from runnables.accelerators.cpu.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def churn():
    before = faults()
    for _ in range(20):
        block = bytearray(48 << 20)
        del block
    return faults() - before

if sys.argv[1] == "keep":
    assert keep_freed_memory()
churn()
print(churn())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_blocks_serve_again_without_page_faults() -> None:
    def faults(mode: str) -> int:
        command = [sys.executable, "-c", PROGRAM, mode]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < faults("leave") / 10
