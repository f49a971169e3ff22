"""The Neuron backend: its cores here, the rest in the environment that its libraries need."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runnables.accelerators.neuron.device import as_range
from runnables.errors import ConfigurationError
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-neuron" / "bin" / "python"


@pytest.mark.parametrize(
    ("given", "wanted"), [("0,1", "0-1"), ("4", "4"), ("5,4,6", "4-6"), ("8-11", "8-11")]
)
def test_cores_as_ray_sets_them_become_a_range(given: str, wanted: str) -> None:
    assert as_range(given) == wanted


@pytest.mark.parametrize("wrong", ["0,2", "a", ""])
def test_cores_that_are_no_range_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError):
        as_range(wrong)


def test_without_the_sdk_the_start_says_so() -> None:
    with pytest.raises(ConfigurationError, match="torch_neuronx"):
        StableDiffusionRunnable(Settings(device="neuron")).start()


@pytest.mark.skipif(not PYTHON.exists(), reason="make neuron-tools has not been run")
def test_compiled_models() -> None:
    command = [str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider", "tests/neuron/compiled"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests/neuron/stub'}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
