"""The WebUI's prompts: weights in brackets, tags of LoRAs, and names of embeddings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runnables import attention
from runnables.errors import InvalidInput

#: the beginning of a tag such as `<lora:name:weight>`
_TAG = re.compile(r"<(\w++):")
LORA = ("lora", "lyco")


@dataclass(frozen=True)
class Prompts:
    """Both prompts of a request without their tags.

    Attributes:
        loras: Our `loras`, as the tags name them.
    """

    prompt: str
    negative_prompt: str
    loras: tuple[dict[str, Any], ...] = ()

    def native(self) -> dict[str, Any]:
        """Return our parameters; without weights the prompts are plain text.

        Raises:
            InvalidInput: A weight is out of range.
        """
        both = {"prompt": self.prompt, "negative_prompt": self.negative_prompt}
        parsed = {name: _pieces(text, name) for name, text in both.items()}
        weighted = any(weight != 1 for pieces in parsed.values() for _, weight in pieces)
        if not weighted:
            both = {name: "".join(text for text, _ in parsed[name]) for name in both}
        return {
            **both,
            "prompt_syntax": "webui" if weighted else "plain",
            **({"loras": self.loras} if self.loras else {}),
        }

    def embeddings(self, names: Sequence[str]) -> list[str]:
        """Return the names that are whole words of either prompt, in any letter case."""
        ordered = sorted(names, key=len, reverse=True)
        pattern = "|".join(rf"(?<!\w)({re.escape(name)})(?!\w)" for name in ordered)
        if not pattern:
            return []
        text = f"{self.prompt}\n{self.negative_prompt}"
        found = re.finditer(pattern, text, re.IGNORECASE)
        return list(dict.fromkeys(ordered[(one.lastindex or 1) - 1] for one in found))


def read(prompt: str, negative_prompt: str) -> Prompts:
    """Return both prompts. As in the WebUI, tags are those of the first one.

    Raises:
        InvalidInput: A tag names what is not available.
    """
    texts, loras = [], []
    *parts, rest = prompt.split(">")
    for part in parts:
        tag = _TAG.search(part)
        if tag is None or tag.end() == len(part):
            texts.append(f"{part}>")
            continue
        texts.append(part[: tag.start()])
        loras.append(_lora(tag[1], part[tag.end() :]))
    return Prompts("".join([*texts, rest]), negative_prompt, tuple(loras))


def _lora(kind: str, content: str) -> dict[str, Any]:
    """Return a tag's LoRA: `name:weight`, or `name:text weight:UNet weight`, also by names."""
    tag = f"<{kind}:{content}>"
    if kind not in LORA:
        raise _unavailable(f"{tag[:200]} is not available; tags are <lora:name:weight>")
    name, *options = content.split(":")
    positional = [option for option in options if "=" not in option]
    named = dict(option.split("=", 1) for option in options if "=" in option)
    if len(positional) > 2 or not named.keys() <= {"te", "unet"}:
        raise _unavailable(f"{tag[:200]}: only the weights of text encoders and UNet are available")
    try:
        text = float(named.get("te", positional[0] if positional else 1))
        unet = float(named.get("unet", positional[1] if len(positional) > 1 else text))
    except ValueError as error:
        raise _unavailable(f"{tag[:200]}: a weight must be a number") from error
    return {"name": name, "weight": unet, **({"text_weight": text} if text != unet else {})}


def _pieces(text: str, field: str) -> list[attention.Piece]:
    try:
        return attention.parse(text)
    except ValueError as error:
        raise InvalidInput(f"{field}: {error}", loc=(field,)) from error


def _unavailable(why: str) -> InvalidInput:
    return InvalidInput(why, loc=("prompt",))
