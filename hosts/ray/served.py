"""Which models the front takes requests for, and what drawers have told about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from runnables.errors import ConfigurationError, UnknownName
from runnables.parameters import AnyParameters

Description = dict[str, Any]


class Served:
    """The models that every drawer knows by its settings, and further ones that Ray spreads.

    Args:
        further: names of `args: {models: ...}` in the config file.
    """

    def __init__(self, further: Iterable[str] = ()) -> None:
        self._further = list(further)
        self._default: Description = {}
        self._own: list[str] = []
        self._told: dict[str, Description] = {}
        self._held: dict[str, frozenset[str]] = {}

    def begin(self, first: Sequence[Description]) -> None:
        """What every drawer knows, the default first: SD_MODEL, and the names of SD_MODELS.

        Raises:
            ConfigurationError: a further model has such a name, too.
        """
        self._default, *others = first
        self._own = [one["name"] for one in others]
        if twice := {one["name"] for one in first} & set(self._further):
            raise ConfigurationError(f"args.models: {', '.join(sorted(twice))} is served already")

    def hear(self, drawer: str, held: Sequence[Description]) -> None:
        """A drawer tells which models beside the default it has now."""
        self._told.update({one["name"]: one for one in held})
        self._held[drawer] = frozenset(one["name"] for one in held)

    def forget_held(self) -> None:
        """A drawer was lost, and nobody knows which: the others will tell again."""
        self._held.clear()

    def describe(self) -> list[Description]:
        """As `GET /models` answers; of a model that was never loaded there is only the name."""
        loaded = frozenset[str]().union(*self._held.values())
        others = (
            {**self._told.get(name, {}), "name": name, "loaded": name in loaded}
            for name in [*self._own, *self._further]
        )
        return [self._default, *others]

    def further(self, parameters: AnyParameters) -> str:
        """The further model that is asked for; "" for those that every drawer knows.

        Raises:
            UnknownName: there is none of this name.
        """
        if parameters.model in self._further:
            return str(parameters.model)
        names = [self._default["name"], *self._own]
        if parameters.model is not None and parameters.model not in names:
            known = ", ".join([*names, *self._further])
            raise UnknownName(
                f"there is no model {parameters.model!r}; known: {known}", loc=("model",)
            )
        return ""
