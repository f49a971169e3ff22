"""The text that the WebUI writes into images, read back."""

from __future__ import annotations

import json
import re

MAX_TEXT = 100_000
NEGATIVE = "Negative prompt: "
#: `name: value`, the value bare or a JSON string, up to the next comma
_SETTING = re.compile(r'\s*(\w[\w \-/]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')


def parse(text: str) -> dict[str, str]:
    """Its prompts and settings by the WebUI's names; empty where there is no such text.

    >>> parse("a cat\\nNegative prompt: dog\\nSteps: 4, Size: 64x32")["Negative prompt"]
    'dog'
    """
    lines = text[:MAX_TEXT].strip().split("\n")
    last = lines[-1]
    settings = dict(_SETTING.findall(last)) if last.startswith("Steps: ") else {}
    if not settings:
        return {}
    prompt, _, negative = "\n".join(lines[:-1]).partition(NEGATIVE)
    found = {"Prompt": prompt.strip(), "Negative prompt": negative.strip()}
    found |= {name.strip(): _plain(value) for name, value in settings.items()}
    size = re.fullmatch(r"(\d+)x(\d+)", found.get("Size", ""))
    if size:
        found["Size-1"], found["Size-2"] = size.groups()
    return found


def _plain(value: str) -> str:
    if not value.startswith('"'):
        return value.strip()
    try:
        return str(json.loads(value))
    except ValueError:
        return value
