"""The replicas' reports about the models that requests may name."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hosts.ray.messages import Description


class Reported:
    """The models of all replicas: each has the same ones, and has loaded some of them."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._models: dict[str, Description] = {}
        self._loaded: dict[str, frozenset[str]] = {}

    def hear(self, replica: str, models: Sequence[Description]) -> None:
        """Take a replica's report of all models, the default first."""
        self._names = [one["name"] for one in models]
        for one in models:
            if one["loaded"] or one["name"] not in self._models:
                self._models[one["name"]] = one
        self._loaded[replica] = frozenset(one["name"] for one in models if one["loaded"])

    def keep(self, running: Collection[str]) -> None:
        """Forget what other replicas than these have loaded: they are gone."""
        self._loaded = {one: names for one, names in self._loaded.items() if one in running}

    def further(self, model: str | None) -> str:
        """The model's name if it is one beside the default; else ""."""
        return model if model in self._names[1:] and model is not None else ""

    def describe(self) -> list[Description]:
        """Return the answer of `GET /models`; a model that was never loaded has only its name."""
        loaded = frozenset[str]().union(*self._loaded.values())
        return [{**self._models[name], "loaded": name in loaded} for name in self._names]
