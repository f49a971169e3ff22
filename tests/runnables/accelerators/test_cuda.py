"""What the GPU's accelerator does with PyTorch's CUDA, which is replaced here: no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from runnables.accelerators.base import Accelerator
from runnables.accelerators.cuda import device
from runnables.accelerators.cuda.device import Cuda
from runnables.accelerators.cuda.graph import CudaGraph
from runnables.accelerators.placement import Placement
from runnables.assembly import family_of
from runnables.checkpoints.loading import load
from runnables.settings import Settings

TinyModel = Callable[[str], Path]


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


def prepared(folder: Path, **settings: object) -> tuple[Any, int]:
    """Return a model that the GPU's accelerator has prepared on the CPU, and its bytes before."""
    cuda = object.__new__(Cuda)
    Accelerator.__init__(cuda, torch.device("cpu"), torch.float32, Settings(**settings))  # type: ignore[arg-type]
    cuda._graphs, cuda._moving = None, set()
    model = family_of(load(str(folder), dtype=torch.float32), cuda)
    before = model.checkpoint.nbytes
    cuda.prepare(model)
    return model, before


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cuda, "place", lambda cuda, family: ())
    monkeypatch.setattr(Cuda, "dtype_of", lambda cuda, family: torch.float32)


def test_a_model_takes_on_the_device_what_the_planner_counted(
    tiny_model: TinyModel, roomy: None
) -> None:
    model, before = prepared(tiny_model("sd1"))
    assert model.checkpoint.nbytes == before


@pytest.mark.parametrize("compile", ["regional", "full"])
def test_every_shape_is_compiled(
    tiny_model: TinyModel, roomy: None, monkeypatch: pytest.MonkeyPatch, compile: str
) -> None:
    """PyTorch compiles eight shapes of one function by default, and then runs it as it is."""
    import torch._dynamo

    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: None)
    with torch._dynamo.config.patch(recompile_limit=8):
        prepared(tiny_model("sd1"), compile=compile)
        assert torch._dynamo.config.recompile_limit >= 64


def test_a_decode_is_planned_in_the_vaes_number_format(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = object.__new__(Cuda)
    Accelerator.__init__(cuda, torch.device("cpu"), torch.float16, Settings())
    planned: list[float] = []
    monkeypatch.setattr(device, "working_bytes", lambda *given: planned.append(given[2]))
    monkeypatch.setattr(device, "place", lambda *given: Placement((), 0, 0, 0))
    monkeypatch.setattr(Cuda, "free_bytes", lambda cuda: 1e9)
    monkeypatch.setattr(Cuda, "dtype_of", lambda cuda, family: torch.float16)
    model = family_of(load(str(tiny_model("sdxl")), dtype=torch.float16), cuda)
    cuda.place(model)
    model.vae.to(torch.float32)
    cuda.place(model)
    assert planned == [2, 4]
