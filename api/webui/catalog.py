"""Lists that a WebUI client looks up: models, options, and those that are empty here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from runnables.errors import InvalidInput, UnknownName

#: what clients look up and is not here, as the WebUI answers where nothing is installed
EMPTY: dict[str, Any] = {
    "sd-vae": [],
    "hypernetworks": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "prompt-styles": [],
    "scripts": {"txt2img": [], "img2img": []},
    "cmd-flags": {},
    "memory": {"ram": {}, "cuda": {}},
}

MAX_CHOOSERS = 10_000  # addresses that are remembered; the latest ones
_HEXADECIMAL = frozenset("0123456789abcdef")


def lora_list(loras: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the LoRAs that `<lora:name:weight>` may name."""
    return [{"name": lora["name"], "alias": lora["name"], "metadata": {}} for lora in loras]


def embedding_list(embeddings: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the embeddings that are words of prompts, without how they were made."""
    facts = dict.fromkeys(("step", "sd_checkpoint", "sd_checkpoint_name", "shape", "vectors"))
    return {"loaded": {one["name"]: facts for one in embeddings}, "skipped": {}}


def model_list(names: list[str]) -> list[dict[str, Any]]:
    """Return the models that `sd_model_checkpoint` may name."""
    return [
        {
            "title": name,
            "model_name": name,
            "hash": None,
            "sha256": None,
            "filename": name,
            "config": None,
        }
        for name in names
    ]


def options(model: str) -> dict[str, Any]:
    """Return the options that clients read."""
    return {"sd_model_checkpoint": model, "sd_checkpoint_hash": "", "samples_format": "png"}


def described(models: list[dict[str, Any]], chosen: str | None) -> dict[str, Any]:
    """Return the description of the chosen model, as `GET /models` has it, else of the first."""
    return next((one for one in models if one["name"] == chosen), models[0])


def model_of(options: Mapping[str, Any], known: Sequence[str], field: str) -> str | None:
    """Return the model that these options name; None where they name none.

    Args:
        known: The models that may be named.
        field: Where the options are in the body.

    Raises:
        InvalidInput, UnknownName: It is no name, or not one of them.
    """
    sent = options.get("sd_model_checkpoint")
    loc = (field, "sd_model_checkpoint")
    if not isinstance(sent, str | None):
        raise InvalidInput("sd_model_checkpoint must be a name", loc=loc)
    name = without_hash(sent or "")
    if name and name not in known:
        raise UnknownName(f"there is no model {name!r}; known: {', '.join(known)}", loc=loc)
    return name or None


def without_hash(name: str) -> str:
    """Return a model's name without the hash that clients show behind it."""
    name = name.strip()
    before, bracket, behind = name.rpartition("[")
    if bracket and len(behind) > 1 and behind[-1] == "]" and _HEXADECIMAL.issuperset(behind[:-1]):
        name = before.rstrip()
    return name.removesuffix(".safetensors")


class Chosen:
    """The models that callers have chosen by `POST /options`, each for its own requests.

    In the WebUI an option holds for everybody. Here it holds for requests with the same key, or
    from the same address where there are no keys, until the service starts again.
    """

    def __init__(self) -> None:
        self._models: OrderedDict[str, str] = OrderedDict()

    def set(self, owner: str, model: str) -> None:
        """Choose a model for this owner's requests."""
        self._models[owner] = model
        self._models.move_to_end(owner)
        if len(self._models) > MAX_CHOOSERS:
            self._models.popitem(last=False)

    def of(self, owner: str, known: Sequence[str]) -> str | None:
        """Return the owner's model, if it has chosen one that is still there."""
        model = self._models.get(owner)
        return model if model in known else None
