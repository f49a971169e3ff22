"""Blocks that are compiled serve every size and number of rows without being compiled again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch._dynamo.utils import counters

from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.long import long
from tests.runnables.engine import reference

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
