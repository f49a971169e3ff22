"""oneDNN keeps what it has compiled, as its own log of a process shows."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

PROGRAM = """
import sys
import torch
from runnables.accelerators.cpu.device import Cpu
from runnables.settings import Settings

if sys.argv[1] == "keep":
    Cpu(Settings())
weight = torch.zeros(1, 1, 1, 1)
shapes = [torch.zeros(rows, 1, 1, 1) for rows in range(1, 1101)]
for rows in [*shapes, *shapes]:
    torch.ops.mkldnn._convolution_pointwise(
        rows, weight, None, [0, 0], [1, 1], [1, 1], 1, "none", [], ""
    )
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_each_shape_is_compiled_once() -> None:
    def compiled(mode: str) -> int:
        environment = {**os.environ, "ONEDNN_VERBOSE": "profile_create"}
        environment.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)
        command = [sys.executable, "-c", PROGRAM, mode]
        log = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout
        return log.count("create:cache_miss,cpu,convolution")

    assert compiled("leave") > 1100, "oneDNN's own limit is too low for so many"
    assert compiled("keep") == 1100
