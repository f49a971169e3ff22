"""A denoiser call is captured as a CUDA graph, with inputs and output at fixed addresses."""

from __future__ import annotations

import torch
from torch import Tensor

from runnables.accelerators.graphs import DenoiserCall, Inputs

WARM_UPS = 2  # calls before a capture: libraries choose kernels, and compiled code is made


class CudaGraph:
    """This graph has memory of its own, which is freed with it."""

    def __init__(self, call: DenoiserCall, inputs: Inputs) -> None:
        self._inputs = [None if one is None else one.clone() for one in inputs]
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                call(self._inputs)
        current.wait_stream(side)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # only this thread's calls are part of it: another one decodes meanwhile
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            before = torch.cuda.memory_reserved()  # a capture begins with an empty cache
            self._output = call(self._inputs)
        self.nbytes = max(0, torch.cuda.memory_reserved() - before)

    def __call__(self, inputs: Inputs) -> Tensor:
        for fixed, given in zip(self._inputs, inputs, strict=True):
            if fixed is not None and given is not None:
                fixed.copy_(given)
        self._graph.replay()
        return self._output
