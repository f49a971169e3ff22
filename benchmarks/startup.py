"""`python -m benchmarks.startup` measures the seconds until the service is ready, and memory.

It compares with a bare script that imports diffusers, loads the same model and generates one image.
Both run in turn; the report has medians and the median ratio of the pairs. On a machine with other
work the processor's seconds, of all processes of an arm, say more than those of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.host import served
from runnables.settings import EMBEDDED_MODEL

BARE = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float32)
pipeline.set_progress_bar_config(disable=True)
pipeline("View of a cyberpunk city", num_inference_steps=2)
print("ready", flush=True)
sys.stdin.read()
"""
MEASURED = ("start to ready, s", "processor time, s", "peak memory, MB")
Measured = tuple[float, float, float]


def bare(model: str) -> Measured:
    """Measure until the first image is generated."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", BARE, model],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"ready"
    measured = measure(started, process.pid)
    process.kill()
    process.wait()
    return measured


def service(model: str) -> Measured:
    """Measure until /readyz answers 200."""
    started = time.perf_counter()
    with served(model) as (_, process):
        return measure(started, process.pid)


def measure(started: float, pid: int) -> Measured:
    """Return what a process and its children have taken up to now."""
    seconds = time.perf_counter() - started
    root = psutil.Process(pid)
    processes = [root, *root.children(recursive=True)]
    memory = sum(peak_memory(process.pid) for process in processes)
    return seconds, sum(sum(process.cpu_times()[:4]) for process in processes), memory


def peak_memory(pid: int) -> float:
    """Return the peak memory of a process in MB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) / 1e3


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    for arm in (bare, service):  # the first run reads the files from disk
        arm(chosen.model)
    pairs = [(bare(chosen.model), service(chosen.model)) for _ in range(chosen.runs)]
    print("| | bare script | service | ratio |\n|---|---|---|---|")
    for index, name in enumerate(MEASURED):
        first, second = ([pair[arm][index] for pair in pairs] for arm in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(first, second, strict=True))
        medians = f"{statistics.median(first):.2f} | {statistics.median(second):.2f}"
        print(f"| {name} | {medians} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
