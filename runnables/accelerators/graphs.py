"""Denoiser calls of one shape are captured once and replayed: a replay costs Python one launch.

What captures is passed in, so that these rules hold for every device that can: a shape is captured
when it is first used, and within a budget of memory those used longest ago make room.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from runnables.families.base import Conditioning, Family

logger = logging.getLogger(__name__)

Inputs = Sequence[Tensor | None]
DenoiserCall = Callable[[Inputs], Tensor]


class Graph(Protocol):
    """A graph is a captured call.

    Attributes:
        nbytes: of the memory that it keeps.
    """

    nbytes: int

    def __call__(self, inputs: Inputs) -> Tensor:
        """Replay the call; what it returns is overwritten by the next replay."""
        ...


Capture = Callable[[DenoiserCall, Inputs], Graph]


class Graphs:
    """The graphs of all loaded models, by model and shapes: size, bucket of rows, prompt length.

    Args:
        capture: runs a call and returns its graph.
        budget: bytes that all graphs may keep.
    """

    def __init__(self, capture: Capture, budget: float) -> None:
        self._capture = capture
        self._budget = budget
        self._graphs: OrderedDict[tuple[int, Hashable], Graph] = OrderedDict()
        self._refused: set[tuple[int, Hashable]] = set()
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
        """Run a denoiser call, by its graph where it has one; arguments as `Family.denoise`.

        Where what happens inside a call depends on the prompts' lengths or the images' sizes, each
        mixture of them would be captured: such calls are run without a graph.
        """
        mask, canvas = conditioning.mask, conditioning.canvas
        if conditioning.tokens or mask is not None or canvas is not None:
            return family.denoise(sample, timesteps, conditioning)
        inputs = (
            sample,
            timesteps,
            conditioning.hidden_states,
            conditioning.pooled,
            conditioning.time_ids,
            conditioning.guidance,
        )
        key = (
            family.number,
            tuple(None if one is None else (one.shape, one.dtype) for one in inputs),
        )
        graph = self._graphs.get(key) or self._captured(family, key, inputs)
        if graph is None:
            return family.denoise(sample, timesteps, conditioning)
        if key in self._graphs:
            self._graphs.move_to_end(key)
        return graph(inputs)

    def clear(self) -> None:
        """Forget every graph, because memory ran out; what is used again is captured again."""
        self._graphs.clear()
        self._refused.clear()

    def _captured(self, family: Family, key: tuple[int, Hashable], inputs: Inputs) -> Graph | None:
        """Capture a call; return None where it cannot be, so that it is run without a graph."""
        if key in self._refused:
            return None
        if family.number not in self._known:
            self._known.add(family.number)
            weakref.finalize(family, self._forget, family.number)
        try:
            graph = self._capture(lambda given: _call(family, given), inputs)
        except Exception as error:
            logger.exception("a denoiser call could not be captured: it is run without a graph")
            if isinstance(error, torch.OutOfMemoryError):  # the call itself needs the room
                self.clear()
            self._refused.add(key)
            return None
        self._graphs[key] = graph
        while self._graphs and self.nbytes > self._budget:
            oldest, _ = self._graphs.popitem(last=False)
            if oldest == key:  # alone it takes more than the budget
                self._refused.add(key)
        return graph

    def _forget(self, number: int) -> None:
        """Drop the graphs of a model that is gone: they hold its weights' addresses."""
        self._known.discard(number)
        self._refused = {key for key in self._refused if key[0] != number}
        for key in [key for key in self._graphs if key[0] == number]:
            del self._graphs[key]


def _call(family: Family, inputs: Inputs) -> Tensor:
    sample, timesteps, hidden_states, pooled, time_ids, guidance = inputs
    assert sample is not None and timesteps is not None and hidden_states is not None
    conditioning = Conditioning(hidden_states, pooled, time_ids, guidance)
    return family.denoise(sample, timesteps, conditioning)
