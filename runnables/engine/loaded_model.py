"""A loaded model has its family's code, its extensions, and what is known of its speed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from runnables.engine.cost import CostModel
from runnables.engine.memory import MemoryModel
from runnables.extensions.base import Extension
from runnables.families.base import Family, Outline
from runnables.parameters import AnyParameters, Parameters

if TYPE_CHECKING:
    from runnables.settings import Settings
    from runnables.upscalers.library import Upscalers


@dataclass(eq=False)
class LoadedModel:
    """A loaded model is one that requests can name.

    Attributes:
        name: what requests call it.
        base: the model itself.
        refiner: SDXL's second model, run after the base; None where there is none.
        extensions: what requests may add to the base model.
        cost: how long its work takes.
        memory: what fits beside it.
    """

    name: str
    base: Family
    settings: Settings
    upscalers: Upscalers
    refiner: Family | None = None
    extensions: tuple[Extension, ...] = ()
    cost: CostModel = field(default_factory=CostModel)
    memory: MemoryModel = field(default_factory=MemoryModel)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all its weights."""
        refiner = self.refiner.checkpoint.nbytes if self.refiner else 0
        return self.base.checkpoint.nbytes + refiner

    def outline(self) -> LoadedModel:
        """Return what is known of the model without its weights; it cannot generate."""
        base = cast(Family, Outline.of(self.base))
        return replace(self, base=base, refiner=None, extensions=())

    def wanted(self, parameters: Parameters) -> list[Extension]:
        """Return the extensions that a request asks for."""
        return [one for one in self.extensions if one.wanted(parameters)]

    def allowed_s(self, parameters: AnyParameters) -> float:
        """Return the seconds after which a request fails."""
        return parameters.deadline_s or self.settings.request_timeout_s

    def share_memory(self) -> None:
        """Count what extensions have loaded against the budget of the steps."""
        self.memory.adapters = sum(one.nbytes for one in self.extensions)
