"""Operators of a trace write over what nobody reads again, and over nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from runnables.accelerators.cpu.in_place import write_in_place

WEIGHT = torch.linspace(-1, 1, 16).reshape(4, 4)
INDEX = torch.tensor([1])


def silu(x: Tensor) -> Tensor:
    return functional.silu(functional.linear(x, WEIGHT))


def of_the_caller(x: Tensor) -> Tensor:
    return functional.silu(x) + x


def read_again(x: Tensor) -> Tensor:
    hidden = functional.linear(x, WEIGHT)
    return hidden + functional.silu(hidden)


def of_a_view(x: Tensor) -> Tensor:
    hidden = functional.linear(x, WEIGHT)
    return functional.silu(hidden.t()) + hidden.t()


def broadcast(x: Tensor) -> Tensor:
    return functional.linear(x[:1], WEIGHT) + x


def chain(x: Tensor) -> Tensor:
    return functional.silu(functional.linear(x, WEIGHT) * x + x)


def copied_into(x: Tensor) -> Tensor:
    hidden = functional.linear(x, WEIGHT)
    return functional.silu(hidden.index_copy(0, INDEX, x[:1]))


def copied_over(x: Tensor) -> Tensor:
    hidden = functional.linear(x, WEIGHT)
    return functional.silu(hidden.index_copy_(0, INDEX, x[:1]))


def copied_over_and_read(x: Tensor) -> Tensor:
    hidden = functional.linear(x, WEIGHT)
    return functional.silu(hidden.index_copy_(0, INDEX, x[:1])) + hidden


def scaled(x: Tensor) -> Tensor:
    return functional.dropout(x / 1.0, 0.5, training=False) / 2.0


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (silu, {"silu_": 1}),
        (of_the_caller, {"silu": 1, "add_": 1}),
        (read_again, {"silu": 1, "add": 1}),
        (of_a_view, {"silu": 1, "add_": 1}),
        (broadcast, {"add": 1}),
        (chain, {"mul_": 1, "add_": 1, "silu_": 1}),
        (copied_into, {"index_copy": 1, "silu": 1}),
        (copied_over, {"index_copy_": 1, "silu_": 1}),
        (copied_over_and_read, {"index_copy_": 1, "silu": 1, "add_": 1}),
        (scaled, {"div": 1}),
    ],
)
@torch.inference_mode()
def test_what_is_written_over(
    function: Callable[[Tensor], Tensor], expected: dict[str, int]
) -> None:
    example = torch.linspace(-2, 2, 12).reshape(3, 4)
    traced: Any = torch.jit.trace(function, (example,))  # type: ignore[attr-defined,no-untyped-call]
    write_in_place(traced.graph)
    given = torch.linspace(-3, 1, 20).reshape(5, 4)
    before = given.clone()
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        for _ in range(2):
            assert torch.equal(traced(given), function(before.clone()))
            assert torch.equal(given, before)
    kinds = Counter(node.kind().removeprefix("aten::") for node in traced.graph.nodes())
    names = ("silu", "add", "mul", "div", "dropout", "index_copy")
    found = {kind: n for kind, n in kinds.items() if kind.removesuffix("_") in names}
    assert found == expected


@torch.inference_mode()
def test_what_trains_is_left_alone() -> None:
    module = nn.Dropout(0.5).train()
    traced: Any = torch.jit.trace(  # type: ignore[attr-defined,no-untyped-call]
        lambda x: module(x), (torch.ones(2, 4),), check_trace=False
    )
    write_in_place(traced.graph)
    assert "aten::dropout" in {node.kind() for node in traced.graph.nodes()}
