"""The HTML that shows a running job: preview, bar, and a line of text."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

EMPTY = '<div class="stage empty"><p>Your image will appear here.</p></div>'


def progress(event: Mapping[str, Any]) -> str:
    """Return a job's progress event, or its document, as HTML."""
    step, steps = int(event.get("step") or 0), int(event.get("steps") or 0)
    percent = round(100 * step / steps) if steps else 0
    return (
        f'<div class="stage">{_picture(event.get("preview"))}'
        f'<div class="bar" role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" '
        f'aria-valuemax="100"><i style="width:{percent}%"></i></div>'
        f'<p role="status">{escape(_line(event, step, steps))}</p></div>'
    )


def message(text: str, *, kind: str = "note") -> str:
    """Return a line of text in the image's place; kind is `note` or `error`."""
    return f'<div class="stage empty {kind}"><p role="status">{escape(text)}</p></div>'


def _picture(preview: object) -> str:
    if not preview:
        return '<div class="wait" aria-hidden="true"></div>'
    source = f"data:image/jpeg;base64,{escape(str(preview), quote=True)}"
    return f'<img class="preview" alt="Preview" src="{source}">'


def _line(event: Mapping[str, Any], step: int, steps: int) -> str:
    parts = [_where(event, step, steps)]
    if event.get("eta_s"):
        parts.append(f"about {max(1, round(event['eta_s']))} s left")
    return " · ".join(parts)


def _where(event: Mapping[str, Any], step: int, steps: int) -> str:
    if event.get("state") == "queued":
        ahead = event.get("position") or 0
        return f"Waiting, {ahead} before you" if ahead else "Next in line"
    return f"Step {step} of {steps}" if steps else "Starting"
