"""The benchmarks run, at a size that says nothing about speed."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import accelerations, fairness, gpu, limit, repeats, serving
from benchmarks.arms import ARMS, Diffusers
from runnables.accelerators.cpu.device import Cpu
from runnables.settings import EMBEDDED_MODEL
from tests.test_requirements import plain


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of 4 steps, not 20: what is measured is not looked at."""
    monkeypatch.setattr(gpu, "STEPS", 4)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("name", ["tiny", "tiny-sd3"])
def test_gpu_benchmark_on_the_cpu_with_a_tiny_model(name: str) -> None:
    report = gpu.Report(name, "cpu", "fp32", images=2, until=math.inf)
    rows = [
        [cell.strip() for cell in row.split("|")[3:5]]
        for row in report.run(["eager"], clients=(1, 2))
    ]
    assert [arm for arm, _ in rows] == [
        "matmul peak",
        "diffusers, eager",
        "engine, eager: difference of 255",
        "engine, eager: until the first image",
        "engine, eager, 1 clients",
        "engine, eager, 2 clients",
        "engine, eager: first step of newcomers",
    ]
    largest = int(rows[2][1].removeprefix("largest ").split(",")[0])
    assert largest <= 2


def test_gpu_benchmark_names_what_it_had_no_time_for() -> None:
    report = gpu.Report("tiny", "cpu", "fp32", images=1, until=0.0)
    (row,) = report.run(["graphs"], speed=False)
    assert "engine, graphs | left out" in row


class Meter:
    """The memory of a device on which each model takes some GB, and its calls one more."""

    now = peak = 0

    def take(self, gigabytes: int) -> None:
        self.now += int(gigabytes * 1e9)
        self.peak = max(self.peak, self.now)

    def call(self) -> None:
        self.take(1)
        self.take(-1)

    def reset(self) -> None:
        self.peak = self.now


METER = Meter()


class Bare:
    """A pipeline of 5 GB whose images are black."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, *given: object) -> None:
        METER.take(5)

    def image(self, seed: int) -> np.ndarray:
        return np.zeros((2, 2, 3))

    def rate(self, images: int) -> float:
        METER.call()
        return 1.0

    def flop(self) -> float:
        return 1e9

    def compile(self) -> None:
        """Compile nothing."""


class Served:
    """An engine of 7 GB whose images are black."""

    cold_s = 1.0

    def __init__(self, *given: object, **options: object) -> None:
        METER.take(7)

    def image(self, seed: int) -> np.ndarray:
        return np.zeros((2, 2, 3), dtype=np.uint8)

    def latencies(self, clients: int, images: int) -> tuple[float, list[float]]:
        METER.call()
        return 2.0, [1.0]

    def newcomers(self, count: int) -> list[float]:
        return [1.0]

    def close(self) -> None:
        METER.take(-7)


def test_the_gpu_benchmark_counts_the_memory_of_an_arm_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bare pipeline stays on the device beside the engine."""
    monkeypatch.setattr(gpu, "_allocated_bytes", lambda: METER.now)
    monkeypatch.setattr(gpu, "_peak_bytes", lambda: METER.peak)
    monkeypatch.setattr(gpu, "_reset_peak", METER.reset)
    monkeypatch.setattr(gpu, "Bare", Bare)
    monkeypatch.setattr(gpu, "Served", Served)
    report = gpu.Report("tiny", "cpu", "fp32", images=1, until=math.inf)
    cells = [row.split("|") for row in report.run(list(gpu.ENGINES), clients=(1,))]
    peaks = {cell[3].strip(): cell[-2].strip() for cell in cells if cell[-2].strip()}
    assert peaks == {
        "diffusers, eager": "6.0",
        "engine, eager, 1 clients": "8.0",
        "engine, graphs, 1 clients": "8.0",
        "diffusers, compiled blocks": "6.0",
        "engine, regional, 1 clients": "8.0",
        "engine, regional, graphs, 1 clients": "8.0",
    }


#: runs every arm where only the packages that the benchmark names can be imported
ALONE = """
import argparse, json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))
from benchmarks import gpu
gpu.STEPS = 4
chosen = argparse.Namespace(
    device="cpu", precision="fp32", images=1, engines=list(gpu.ENGINES), clients=[1]
)
gpu.measure("tiny", chosen, 3600.0)
"""


def test_the_gpu_benchmark_runs_every_arm_with_the_packages_that_it_names() -> None:
    """Graphs are CUDA's alone, and PyTorch is asked to compile nothing: that takes minutes."""
    named = {"torch", "diffusers", "transformers", "pillow", "pydantic-settings"}
    known = {*named}
    while named:
        needed = {need for name in named for need in needs(name)}
        named = needed - known
        known |= named
    hidden = [
        module
        for module, owners in packages_distributions().items()
        if not known & {plain(owner) for owner in owners}
    ]
    assert {"psutil", "bentoml", "starlette"} <= set(hidden)
    environment = os.environ | {"TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-c", ALONE, json.dumps(hidden)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    arms = [line.split("|")[3].strip() for line in ran.stdout.splitlines() if "| tiny" in line]
    served = [f"engine, {name}: first step of newcomers" for name in gpu.ENGINES]
    assert {"diffusers, eager", "diffusers, compiled blocks", *served} <= set(arms)


def needs(package: str) -> set[str]:
    """The packages that a package needs, without its extras; none where it is not installed."""
    try:
        lines = requires(package) or []
    except PackageNotFoundError:
        return set()
    return {plain(re.split(r"[^\w.-]", line)[0]) for line in lines if "extra ==" not in line}


def test_the_gpu_benchmark_stops_what_lasts_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.bounded(600, abs, -1)
    assert not gpu.bounded(600, abs, "no number")
    gpu.main(["--device", "cpu", "--models", "tiny", "tiny-sd3", "--seconds", "0"])
    stopped = [line for line in capsys.readouterr().out.splitlines() if "stopped" in line]
    assert [line.split("|")[1].strip() for line in stopped] == ["tiny 64", "tiny-sd3 64"]


def test_differences_are_measured() -> None:
    black = np.zeros((2, 2, 3), dtype=np.uint8)
    assert gpu.difference([black], [black.astype(float)]) == "largest 0, mean 0.000, inf dB"
    off = black.copy()
    off[0, 0, 0] = 12
    assert gpu.difference([off], [black.astype(float)]).startswith("largest 12, mean 1.000, 37.3")


def test_static_batches_generate_what_single_calls_generate() -> None:
    import numpy as np

    single, batched = Diffusers(EMBEDDED_MODEL), Diffusers(EMBEDDED_MODEL, largest=4)
    try:
        requested = [one.model_copy(update={"num_inference_steps": 2}) for one in serving.equal(3)]
        futures = [batched.submit(one) for one in requested]
        for one, future in zip(requested, futures, strict=True):
            alone = np.asarray(single.submit(one).result()).astype(int)
            assert np.abs(alone - np.asarray(future.result()).astype(int)).max() <= 2
    finally:
        single.close()
        batched.close()


def test_outcomes_are_counted() -> None:
    outcome = serving.Outcome(2.0, (0.1, 0.3, 0.2, 0.4))
    assert outcome.rate == 2.0
    assert outcome.within(0.25) == 0.5
    assert set(ARMS) == {"one at a time", "static batches", "engine", "engine, bf16"}


def test_arms_are_compared_round_by_round(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD_THREADS", "1")
    arms = ("one at a time", "engine")
    lines = list(
        serving.run(tiny_model("sd1"), requests=2, arrivals=2, loads=(1.5,), rounds=2, arms=arms)
    )
    cells = [[cell.strip() for cell in line.split("|")] for line in lines[1:]]
    assert [row[2] for row in cells] == [*arms] * 4
    assert cells[2][4] == "1.00 (1.00 to 1.00)"
    low, median, high = (float(cells[3][4].split()[i].strip("()")) for i in (1, 0, 3))
    assert 0 < low <= median <= high
    assert cells[-1][1] == "Poisson 150%, mixed"


def test_every_acceleration_changes_the_image_and_the_plain_request_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SD_THREADS", "1")  # other tests have the other cores
    monkeypatch.setattr(accelerations, "PROMPTS", accelerations.PROMPTS[:1])
    lines = accelerations.run(Path(EMBEDDED_MODEL), steps=6, rounds=1)[1:]
    distances = [line.split("|")[5].strip() for line in lines]
    assert distances[0] == "same"
    assert all(float(distance) > 10 for distance in distances[1:])


def test_fairness_reports_every_situation(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD_THREADS", "1")
    monkeypatch.setattr(fairness, "WARM", 1)
    lines = list(fairness.run(tiny_model("sd1"), rounds=1, shots=1, steps=1, requests=8))
    assert [line.split("|")[1].strip() for line in lines[2:7]] == list(fairness.ROWS)
    assert any(line.startswith("small requests refused: 0;") for line in lines)
    assert "twice what it takes alone" in lines[7]
    assert "of the flood" in "".join(lines)
    assert any(line.startswith("the first 8 requests: ") for line in lines)
    assert any(line.startswith("the next 8 requests: ") for line in lines)


def test_repeats_are_answered_from_memory(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD_THREADS", "1")
    lines = list(repeats.run(tiny_model("sd1"), share=1.0, requests=8, clients=1, rounds=1))
    assert {"| hit | 4 |", "| generated | 4 |"} <= set(lines)


def test_the_limit_of_a_real_engine(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No figure is bounded: on a busy machine any call may be the slow one."""
    monkeypatch.setenv("SD_THREADS", "1")
    monkeypatch.setattr(limit, "EVERY", 1)
    lines = list(limit.run(tiny_model("sd1"), requests=4, clients=2, rounds=1))[2:]
    figures = {line.split("|")[1].strip(): line.split("|")[2:6] for line in lines}
    assert list(figures) == ["equal", "mixed"]
    for rate, most, share, gain in figures.values():
        assert float(share) == pytest.approx(float(rate) / float(most), abs=0.02)
        assert float(gain) > 0


def test_the_limit_is_that_of_the_fullest_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is repeated between the steps, so that no step takes longer."""
    fullest, made = limit.Fullest(), list[int]()
    monkeypatch.setattr(limit, "EVERY", 2)
    monkeypatch.setattr(Cpu, "denoise", lambda cpu, family, sample, *rest: made.append(len(sample)))
    monkeypatch.setattr(Cpu, "before_step", lambda cpu: None)
    nothing: Any = None
    plain: Any = SimpleNamespace(canvas=None, mask=None)
    mixed: Any = SimpleNamespace(canvas=object(), mask=None)
    with fullest.watching():
        for rows, conditioning in ((2, plain), (4, plain), (8, mixed), (3, plain)):
            Cpu.before_step(nothing)
            Cpu.denoise(nothing, nothing, torch.zeros(rows), torch.zeros(rows), conditioning)
    assert made == [2, 2, 4, 8, 4, 3]
    assert fullest.rows == 17
    assert fullest.row_s == fullest.seconds / (2 + 4)
