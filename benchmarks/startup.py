"""`python -m benchmarks.startup` measures the seconds until the service is ready, and memory.

It compares with a bare script that imports diffusers, loads the same model and generates one image.
Both run in turn; the report has medians and the median ratio of the pairs.
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
Measured = tuple[float, float]  # seconds, MB


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
    seconds = time.perf_counter() - started
    memory = peak_memory(process.pid)
    process.kill()
    process.wait()
    return seconds, memory


def service(model: str) -> Measured:
    """Measure until /readyz answers 200."""
    started = time.perf_counter()
    with served(model) as (_, process):
        return time.perf_counter() - started, peak_memory(process.pid)


def peak_memory(pid: int) -> float:
    """Return the peak memory of a process and all its children, in MB (Linux)."""
    root = psutil.Process(pid)
    total = 0
    for process in [root, *root.children(recursive=True)]:
        status = Path(f"/proc/{process.pid}/status").read_text()
        total += next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
    return total / 1e3


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
    for index, name in enumerate(("start to ready, s", "peak memory, MB")):
        first, second = ([pair[arm][index] for pair in pairs] for arm in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(first, second, strict=True))
        medians = f"{statistics.median(first):.2f} | {statistics.median(second):.2f}"
        print(f"| {name} | {medians} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
