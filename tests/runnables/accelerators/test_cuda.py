"""What the GPU's accelerator does with PyTorch's CUDA, which is replaced here: no GPU is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from runnables.accelerators.cuda.device import Cuda
from runnables.accelerators.cuda.graph import CudaGraph


class Memory:
    """The counters of PyTorch's allocator, of a device of 1000 bytes."""

    def __init__(self) -> None:
        self.reserved = self.allocated = 0

    def empty_cache(self) -> None:
        self.reserved = self.allocated

    def mem_get_info(self, device: object) -> tuple[int, int]:
        return 1000 - self.reserved, 1000


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()

    @contextmanager
    def captured(*args: Any, **kwargs: Any) -> Iterator[None]:
        memory.empty_cache()  # as PyTorch does before a capture
        yield

    @contextmanager
    def stream(one: object) -> Iterator[None]:
        yield

    replaced = {
        "memory_reserved": lambda: memory.reserved,
        "memory_allocated": lambda: memory.allocated,
        "mem_get_info": memory.mem_get_info,
        "graph": captured,
        "CUDAGraph": SimpleNamespace,
        "Stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
        "current_stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
        "stream": stream,
        "synchronize": lambda: None,
    }
    for name, one in replaced.items():
        monkeypatch.setattr(torch.cuda, name, one)
    return memory


def test_a_graph_keeps_what_its_capture_reserves(memory: Memory) -> None:
    """The calls before it leave as much in the cache, which the capture gives back first."""

    def call(inputs: Any) -> torch.Tensor:
        memory.reserved = max(memory.reserved, 300)
        return torch.zeros(1)

    assert CudaGraph(call, []).nbytes == 300


def test_what_graphs_keep_is_not_free(memory: Memory) -> None:
    cuda = object.__new__(Cuda)
    cuda.device = torch.device("cuda")
    cuda._graphs = None
    memory.reserved, memory.allocated = 500, 200
    assert cuda.free_bytes() == 800
    cuda._graphs = SimpleNamespace(nbytes=120)  # type: ignore[assignment]
    assert cuda.free_bytes() == 680
