"""Six lines for the person who starts the service: address, page, model, device and more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from runnables.settings import EMBEDDED_MODEL, Settings

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}


def banner(settings: Settings, model: dict[str, Any], address: str | None, jobs: Path) -> str:
    """Return the lines.

    Args:
        model: as the runnable describes its default model.
        address: where this process answers, such as http://127.0.0.1:3000; None where another
            process answers in its place.
        jobs: the folder of jobs.
    """
    return "\n".join(
        ["ready", *(f"  {name:9} {text}" for name, text in _lines(settings, model, address, jobs))]
    )


def _lines(
    settings: Settings, model: dict[str, Any], address: str | None, jobs: Path
) -> Iterator[tuple[str, str]]:
    if address:
        yield "API", f"{address}/txt2img, /img2img and others"
        yield "page", f"{address}/ui" if settings.ui else "none (SD_UI=false)"
        yield "Swagger", f"{address}/"
    demo = " (a small demo model)" if settings.model == str(EMBEDDED_MODEL) else ""
    yield "model", f"{model['name']}{demo} on {model['device']} in {model['precision']}"
    open_to = "none: everybody who reaches this address may generate (SD_API_KEYS)"
    yield "API keys", "needed" if settings.api_keys else open_to
    yield "jobs", str(jobs)


def listening() -> str | None:
    """Return the first address at which this process accepts connections."""
    for one in psutil.Process().net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN:
            return f"http://{ANYWHERE.get(one.laddr.ip, one.laddr.ip)}:{one.laddr.port}"
    return None
