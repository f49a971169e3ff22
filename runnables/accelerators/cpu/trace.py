"""A denoiser call is traced, so that its operators run one after the other without any Python.

The modules of a UNet and the checks around its operators take a tenth of a step of 32 rows, and a
quarter of one with two rows. The operators and so the numbers are the same as without a trace.
PyTorch calls its `torch.jit` deprecated. What replaces it needs a C++ compiler or runs in Python,
and where it is missing, calls are run without a trace.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from runnables.accelerators.cpu.in_place import write_in_place
from runnables.accelerators.graphs import Call, Inputs

USES = 60  # a trace takes about as long as it saves in so many calls: 7 ms of each to 20 ms
NBYTES = 2 << 20  # of a trace, beside the weights, which it shares with the model
BUDGET = 32 * NBYTES  # of all traces


class Trace:
    """This graph serves calls of any number of rows; its inputs have rows on the first axis."""

    nbytes = NBYTES

    def __init__(self, call: Call, inputs: Inputs) -> None:
        call(inputs)  # convolutions have packed their weights then
        inputs = call.fewest(inputs)  # PyTorch keeps more of what it traces than a call does
        program = _Program(call, inputs, call.family.denoiser)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, and sizes that become constants
            self._traced = torch.jit.trace(program, (_given(inputs),), check_trace=False)
        write_in_place(self._traced.graph)
        del program.call  # or the model would be kept as long as its trace

    def __call__(self, inputs: Inputs) -> Tensor:
        # its optimizer takes as long as ten calls, and gains nothing that was measured
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            output: Tensor = self._traced(_given(inputs))
        return output


class _Program(nn.Module):
    """The program holds a model's weights as its own, because constants of a trace are copies.

    The model's modules are not a part of it. PyTorch would script each of them, for a second.
    """

    def __init__(self, call: Call, inputs: Inputs, model: nn.Module) -> None:
        super().__init__()
        self.call = call
        self.there = [one is not None for one in inputs]
        weights: Iterable[Tensor] = [*model.parameters(), *model.buffers()]
        for number, weight in enumerate({id(weight): weight for weight in weights}.values()):
            self.register_buffer(f"weight_{number}", weight)

    def forward(self, given: list[Tensor]) -> Tensor:
        left = iter(given)
        return self.call([next(left) if there else None for there in self.there])


def _given(inputs: Inputs) -> list[Tensor]:
    return [one for one in inputs if one is not None]
