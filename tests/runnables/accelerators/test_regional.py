"""Blocks that are compiled serve every size and number of rows without being compiled again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch._dynamo.utils import counters

from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.long import long
from tests.runnables.engine import reference

#: prints how many graphs a start had, and how often Inductor and the C++ compiler compiled
STARTS = """
import sys
from torch._inductor import cpp_builder
from torch._dynamo.utils import counters
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
calls, build = [], cpp_builder.CppBuilder.build
cpp_builder.CppBuilder.build = lambda self: calls.append(self) or build(self)
StableDiffusionRunnable(
    Settings(model=sys.argv[1], compile="regional", threads=1, measured_dir=sys.argv[2])
).start()
print(counters["stats"]["unique_graphs"], counters["inductor"]["fxgraph_cache_miss"])
print(sum(not (one._preprocessing or one._precompiling) for one in calls))  # headers
"""

Start = Callable[..., StableDiffusionRunnable]


@long
def test_nothing_is_compiled_after_warm_up(start: Start, tiny_model: Callable[[str], Path]) -> None:
    runnable = start("sd1", compile="regional")
    compiled = counters["stats"]["unique_graphs"]
    assert compiled > 0
    base = {"num_inference_steps": 3, "seed": 4, "scheduler": "euler"}
    requests = [
        TextToImage(prompt="a cat", **base),  # type: ignore[arg-type]
        TextToImage(prompt="a cat", guidance_scale=1.0, **base),  # type: ignore[arg-type]
        TextToImage(prompt="a cat " * 100, **base),  # type: ignore[arg-type]
        TextToImage(prompt="x", height=96, width=64, num_images_per_prompt=3, **base),  # type: ignore[arg-type]
        TextToImage(prompt="x", deep_cache_interval=2, **base),  # type: ignore[arg-type]
    ]
    tickets = [runnable.submit(one) for one in requests]
    images = [ticket.future.result(timeout=300).images[0].image for ticket in tickets]
    assert counters["stats"]["unique_graphs"] == compiled
    for request, image in zip(requests[:2], images, strict=False):
        expected = reference.generate(
            tiny_model("sd1"), request.model_copy(update={"height": 64, "width": 64})
        )
        assert np.abs(np.asarray(image).astype(int) - expected.astype(int)).max() <= 2


@long
def test_a_second_process_compiles_nothing(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    def started(place: str) -> list[int]:
        """Start in a process whose folder for temporary files is empty, as in a new pod."""
        (tmp_path / place).mkdir()
        environment = {**os.environ, "TMPDIR": str(tmp_path / place)}
        environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
        command = [sys.executable, "-c", STARTS, str(tiny_model("sd1")), str(tmp_path / "kept")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return [int(one) for one in done.stdout.split()[-3:]]

    graphs, inductor, compiler = started("first")
    assert inductor > 0 and compiler > 0
    assert started("second") == [graphs, 0, 0]
