"""Denoiser calls of one shape are captured once and replayed: a replay costs Python one launch.

What captures is passed in, so that these rules hold for every device that can: a shape is captured
when it is used for the n-th time, and within a budget of memory those used longest ago make room.
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from runnables.families.base import Conditioning, Family

logger = logging.getLogger(__name__)

Inputs = Sequence[Tensor | None]
Key = tuple[int, Hashable]
USES = 10_000  # that are counted before all are forgotten


class Call(Protocol):
    """A call is a function of tensors."""

    @property
    def family(self) -> Family:
        """Return whose denoiser it runs."""
        ...

    @property
    def structure(self) -> Hashable:
        """Return what calls that one graph serves have in common, beside the tensors' shapes."""
        ...

    def __call__(self, inputs: Inputs) -> Tensor:
        """Run the call."""
        ...

    def fewest(self, inputs: Inputs) -> Inputs:
        """Return inputs of the same structure with as few rows as that can have."""
        ...


@dataclass(frozen=True)
class DenoiserCall:
    """A denoiser call is a function of its tensors: (sample, timesteps, *conditioning.tensors)."""

    family: Family
    conditioning: Conditioning
    structure: Hashable = None

    def __call__(self, inputs: Inputs) -> Tensor:
        sample, timesteps, *rest = inputs
        assert sample is not None and timesteps is not None
        return self.family.denoise(sample, timesteps, self.conditioning.with_tensors(rest))

    def fewest(self, inputs: Inputs) -> Inputs:
        return [None if one is None else one[:1] for one in inputs]


class Graph(Protocol):
    """A graph is a captured call.

    Attributes:
        nbytes: of the memory that it keeps.
    """

    nbytes: int

    def __call__(self, inputs: Inputs) -> Tensor:
        """Replay the call; what it returns is overwritten by the next replay."""
        ...


Capture = Callable[[Any, Inputs], Graph]


class Graphs:
    """The graphs of all loaded models, by model and shapes: size, bucket of rows, prompt length.

    Args:
        capture: runs a call and returns its graph.
        budget: bytes that all graphs may keep.
        uses: a call is captured when it comes for this time; may be changed.
        any_rows: whether a graph serves calls of any number of rows, and of several prompt lengths,
            too. Else each mixture of those would have a graph, and they have none.
    """

    def __init__(
        self, capture: Capture, budget: float, *, uses: int = 1, any_rows: bool = False
    ) -> None:
        self._capture = capture
        self._budget = budget
        self.uses = uses
        self._any_rows = any_rows
        self._graphs: OrderedDict[Key, Graph] = OrderedDict()
        self._counts: Counter[Key] = Counter()
        self._refused: set[Key] = set()
        self._known: set[int] = set()

    def __len__(self) -> int:
        return len(self._graphs)

    @property
    def nbytes(self) -> int:
        """Return the bytes that all graphs keep."""
        return sum(graph.nbytes for graph in self._graphs.values())

    def denoise(
        self, family: Family, sample: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """Run a denoiser call, by its graph where it has one; arguments as `Family.denoise`."""
        masked = conditioning.mask is not None and not self._any_rows
        if conditioning.tokens or conditioning.canvas is not None or masked:
            return family.denoise(sample, timesteps, conditioning)
        inputs = [sample, timesteps, *conditioning.tensors]
        return self.run(DenoiserCall(family, conditioning), inputs)

    def run(self, call: Call, inputs: Inputs) -> Tensor:
        """Run a call, by its graph where it has one."""
        key = call.family.number, (call.structure, self._shapes(inputs))
        graph = self._graphs.get(key)
        if graph:
            self._graphs.move_to_end(key)
        elif self._is_due(key):
            graph = self._captured(key, call, inputs)
        if graph:
            try:
                return graph(inputs)
            except Exception:
                logger.exception("a graph failed: its calls are run without it")
                self._refuse(key)
        return call(inputs)

    def _shapes(self, inputs: Inputs) -> Hashable:
        """Return what the tensors of calls with the same graph have in common."""
        first = 1 if self._any_rows else 0
        return tuple(None if one is None else (one.shape[first:], one.dtype) for one in inputs)

    def _is_due(self, key: Key) -> bool:
        """Count a use, and return whether the call is to be captured now."""
        if len(self._counts) > USES:
            self._counts.clear()
        self._counts[key] += 1
        return self._counts[key] >= self.uses and key not in self._refused

    def clear(self) -> None:
        """Forget every graph, because memory ran out; what is used again is captured again."""
        self._graphs.clear()
        self._refused.clear()

    def _captured(self, key: Key, call: Call, inputs: Inputs) -> Graph | None:
        """Capture a call; return None where it cannot be, so that it is run without a graph."""
        family = call.family
        if family.number not in self._known:
            self._known.add(family.number)
            weakref.finalize(family, self._forget, family.number)
        try:
            graph = self._capture(call, inputs)
        except Exception as error:
            logger.exception("a denoiser call could not be captured: it is run without a graph")
            if isinstance(error, torch.OutOfMemoryError):  # the call itself needs the room
                self.clear()
            self._refuse(key)
            return None
        self._graphs[key] = graph
        while self._graphs and self.nbytes > self._budget:
            oldest, _ = self._graphs.popitem(last=False)
            del self._counts[oldest]
            if oldest == key:  # alone it takes more than the budget
                self._refuse(key)
        return graph

    def _refuse(self, key: Key) -> None:
        """Run these calls without a graph from now on."""
        self._graphs.pop(key, None)
        self._refused.add(key)

    def _forget(self, number: int) -> None:
        """Drop the graphs of a model that is gone: they hold its weights' addresses."""
        self._known.discard(number)
        self._refused = {key for key in self._refused if key[0] != number}
        for kept in (self._graphs, self._counts):
            for key in [key for key in kept if key[0] == number]:
                del kept[key]
