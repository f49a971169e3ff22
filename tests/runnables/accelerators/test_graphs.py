"""Graphs are kept by shape within a budget; a recording capture stands for CUDA's."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from runnables.accelerators.graphs import DenoiserCall, Graphs, Inputs
from runnables.families.base import Conditioning


class Model:
    """The part of a family that graphs use; it counts its calls."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = 0

    def denoise(
        self, sample: Tensor, timesteps: Tensor, conditioning: Conditioning, **extra: Any
    ) -> Tensor:
        self.calls += 1
        return sample + timesteps.view(-1, 1, 1, 1) + conditioning.hidden_states.mean()


class Recorded:
    """As CUDA's: inputs and output stay where they are, and a replay runs no Python of the call.

    The call is kept as a traced program, so that values that are not copied in stay the old ones.
    """

    nbytes = 100

    def __init__(self, call: DenoiserCall, inputs: Inputs) -> None:
        from torch.fx.experimental.proxy_tensor import make_fx

        self._inputs = [None if one is None else one.clone() for one in inputs]
        tensors = [one for one in self._inputs if one is not None]

        def plain(*given: Tensor) -> Tensor:
            left = iter(given)
            return call([None if one is None else next(left) for one in self._inputs])

        self._program = make_fx(plain)(*tensors)
        self._output = self._program(*tensors)

    def __call__(self, inputs: Inputs) -> Tensor:
        for fixed, one in zip(self._inputs, inputs, strict=True):
            if fixed is not None and one is not None:
                fixed.copy_(one)  # fails where a shape is another
        self._output.copy_(self._program(*(one for one in self._inputs if one is not None)))
        return self._output


def arguments(rows: int, side: int = 8, tokens: int = 77) -> tuple[Tensor, Tensor, Conditioning]:
    text = Conditioning(torch.randn(rows, tokens, 4))
    return torch.randn(rows, 4, side, side), torch.rand(rows), text


def test_a_shape_is_captured_once_and_replayed_with_new_values() -> None:
    graphs, model = Graphs(Recorded, 1000), Model(1)
    for _ in range(3):
        given = arguments(2)
        output = graphs.denoise(model, *given)  # type: ignore[arg-type]
        assert torch.equal(output, Model(0).denoise(*given))
    assert (len(graphs), model.calls) == (1, 1)
    for rows, side, tokens in ((4, 8, 77), (2, 16, 77), (2, 8, 154)):
        graphs.denoise(model, *arguments(rows, side, tokens))  # type: ignore[arg-type]
    assert len(graphs) == 4


def test_the_one_used_longest_ago_makes_room() -> None:
    graphs, model = Graphs(Recorded, 250), Model(1)
    for rows in (2, 4, 2, 8):  # 4 goes
        graphs.denoise(model, *arguments(rows))  # type: ignore[arg-type]
    assert (len(graphs), graphs.nbytes, model.calls) == (2, 200, 3)
    graphs.denoise(model, *arguments(2))  # type: ignore[arg-type]
    assert model.calls == 3
    graphs.denoise(model, *arguments(4))  # type: ignore[arg-type]
    assert model.calls == 4


def test_one_over_the_budget_is_not_captured_again() -> None:
    graphs, model = Graphs(Recorded, 50), Model(1)
    for _ in range(3):
        given = arguments(2)
        output = graphs.denoise(model, *given)  # type: ignore[arg-type]
        assert torch.equal(output, Model(0).denoise(*given))
    assert len(graphs) == 0
    assert model.calls == 3


def test_calls_whose_shapes_depend_on_the_prompts_run_without_a_graph() -> None:
    """Z-Image's do; the graphs of other models stay."""

    class Cutting(Model):
        def denoise(self, sample: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:  # type: ignore[override]
            texts = zip(conditioning.hidden_states, conditioning.tokens, strict=True)
            means = [row[:tokens].mean() for row, tokens in texts]
            return super().denoise(sample, timesteps, conditioning) + torch.stack(means).sum()

    graphs, other, model = Graphs(Recorded, 1000), Model(1), Cutting(2)
    graphs.denoise(other, *arguments(2))  # type: ignore[arg-type]
    for tokens in ((3, 5), (7, 2)):
        sample, timesteps, text = arguments(2)
        given = sample, timesteps, replace(text, tokens=tokens)
        output = graphs.denoise(model, *given)  # type: ignore[arg-type]
        assert torch.equal(output, Cutting(0).denoise(*given))
    graphs.denoise(other, *arguments(2))  # type: ignore[arg-type]
    assert (len(graphs), other.calls, model.calls) == (1, 1, 2)


def test_calls_with_rows_of_different_lengths_run_without_a_graph() -> None:
    """Their mask is no input of a graph, which would replay them without one."""

    class Masking(Model):
        def denoise(self, sample: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:  # type: ignore[override]
            text, mask = conditioning.hidden_states, conditioning.mask
            text = text if mask is None else text[mask]
            return super().denoise(sample, timesteps, conditioning) + text.mean()

    graphs, model = Graphs(Recorded, 1000), Masking(1)
    for length in (3, 5):
        sample, timesteps, text = arguments(2)
        mask = torch.arange(77)[None] < torch.tensor([[77], [length]])
        given = sample, timesteps, replace(text, mask=mask)
        output = graphs.denoise(model, *given)  # type: ignore[arg-type]
        assert torch.equal(output, Masking(0).denoise(*given))


def test_a_failed_capture_leaves_the_other_graphs_but_where_memory_ran_out() -> None:
    error: Exception | None = None

    def capture(call: DenoiserCall, inputs: Inputs) -> Recorded:
        if error:
            raise error
        return Recorded(call, inputs)

    graphs, model, other = Graphs(capture, 1000), Model(1), Model(2)
    graphs.denoise(model, *arguments(2))  # type: ignore[arg-type]
    error = RuntimeError("not permitted in a capture")
    for _ in range(2):
        graphs.denoise(other, *arguments(2))  # type: ignore[arg-type]
    assert (len(graphs), other.calls) == (1, 2)
    error = torch.OutOfMemoryError("full")
    graphs.denoise(other, *arguments(4))  # type: ignore[arg-type]
    assert (len(graphs), other.calls) == (0, 3), "the call needs the room"


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("full"), RuntimeError("illegal")])
def test_a_call_that_cannot_be_captured_is_run(error: Exception) -> None:
    failing = True

    def capture(call: DenoiserCall, inputs: Inputs) -> Recorded:
        if failing:
            raise error
        return Recorded(call, inputs)

    graphs, model = Graphs(capture, 1000), Model(1)
    given = arguments(2)
    output = graphs.denoise(model, *given)  # type: ignore[arg-type]
    assert torch.equal(output, Model(0).denoise(*given))
    failing = False
    graphs.denoise(model, *arguments(4))  # type: ignore[arg-type]
    assert len(graphs) == 1
    graphs.clear()  # memory was freed: it is tried again
    graphs.denoise(model, *arguments(2))  # type: ignore[arg-type]
    assert len(graphs) == 1


def test_a_models_graphs_go_with_it() -> None:
    graphs, kept, gone = Graphs(Recorded, 1000), Model(1), Model(2)
    for model in (kept, gone):
        graphs.denoise(model, *arguments(2))  # type: ignore[arg-type]
    assert len(graphs) == 2
    del gone, model
    gc.collect()
    assert len(graphs) == 1
    graphs.denoise(kept, *arguments(2))  # type: ignore[arg-type]
    assert kept.calls == 1


class Failing(Recorded):
    """A graph whose replays fail."""

    def __call__(self, inputs: Inputs) -> Tensor:
        raise RuntimeError("invalid shape")


def test_a_graph_that_fails_is_not_used_again() -> None:
    graphs, model = Graphs(Failing, 1000), Model(1)
    for calls in (2, 3, 4):  # one is the capture's own
        given = arguments(2)
        output = graphs.denoise(model, *given)  # type: ignore[arg-type]
        assert torch.equal(output, Model(0).denoise(*given))
        assert (len(graphs), model.calls) == (0, calls)


def test_a_call_is_captured_when_it_is_used_often() -> None:
    graphs, model = Graphs(Recorded, 1000, uses=3), Model(1)
    captured = []
    for rows in (2, 2, 4, 2):
        graphs.denoise(model, *arguments(rows))  # type: ignore[arg-type]
        captured.append(len(graphs))
    assert captured == [0, 0, 0, 1]
