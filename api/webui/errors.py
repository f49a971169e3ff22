"""Errors in the WebUI's form, with the names that the WebUI's clients use."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from api.webui import enlarge
from api.webui.translate import CLIP_SKIP, NAMES
from runnables.errors import StableDiffusionError

#: our names of fields -> what the caller wrote, for errors that come later than the body's check
FIELDS = {
    **NAMES,
    **enlarge.EXTRAS,
    "loras": "prompt",
    "embeddings": "prompt",
    "clip_skip": f"override_settings.{CLIP_SKIP}",
}
#: those of them that are in the texts of such errors
WORDS = re.compile(r"\b(num_inference_steps|guidance_scale|strength|hires)\b")


def body(error: StableDiffusionError) -> dict[str, Any]:
    """Return `{"error", "detail", "body", "errors"}`: the kind, and what is wrong where."""
    kind = HTTPStatus(error.status).phrase if error.status in set(HTTPStatus) else "Error"
    text = message(error)
    return {"error": kind, "detail": text, "body": "", "errors": text}


def message(error: StableDiffusionError) -> str:
    """Return what is wrong; where the request is at fault, the text names the field."""
    ours, text = [str(part) for part in error.loc], error.message
    beginnings = (".".join(ours[:length]) for length in range(len(ours), 0, -1))
    field = next((FIELDS[name] for name in beginnings if name in FIELDS), "")
    if field:
        text = WORDS.sub(lambda found: FIELDS[found[0]], text)
    field = field or ".".join(ours)
    return text if error.status >= 500 or field in text else f"{field}: {text}"
