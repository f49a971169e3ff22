"""What a WebUI client looks up: models, options, and lists that are empty here."""

from __future__ import annotations

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


def check_model(wanted: dict[str, Any], known: list[str], field: str) -> str | None:
    """Return the model that these options name, if any.

    Args:
        known: The models that may be named.

    Raises:
        InvalidInput, UnknownName: It is no name, or not one of them.
    """
    name = wanted.get("sd_model_checkpoint")
    loc = (field, "sd_model_checkpoint")
    if name is None:
        return None
    if not isinstance(name, str):
        raise InvalidInput("sd_model_checkpoint must be a name", loc=loc)
    if name not in known:
        raise UnknownName(f"there is no model {name!r}; known: {', '.join(known)}", loc=loc)
    return name


def check_options(wanted: dict[str, Any], known: list[str]) -> None:
    """Let options pass that change nothing: nobody sets options for others.

    Args:
        known: The names of models, the default first.

    Raises:
        InvalidInput, UnknownName: The model is not the default.
    """
    if check_model(wanted, known, "body") not in (None, known[0]):
        raise InvalidInput(
            "the model is chosen by each request: name it in its override_settings",
            loc=("body", "sd_model_checkpoint"),
        )
