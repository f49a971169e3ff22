"""The calls of MCP's tools, without a server."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from api.mcp.calls import Calls
from runnables.errors import UnknownName
from runnables.images import codec
from runnables.settings import Settings


def test_base64_is_read_in_the_threads_that_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of many megabytes held all other requests."""
    threads: list[str] = []
    read: Callable[[str, str], bytes] = codec.from_base64

    def watched(text: str, field: str) -> bytes:
        threads.append(threading.current_thread().name)
        return read(text, field)

    monkeypatch.setattr(codec, "from_base64", watched)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    generation: Any = SimpleNamespace(settings=Settings())
    request: Any = SimpleNamespace(base_url="http://here/")
    jobs: Any = None
    calls = Calls(jobs, generation, request, "")
    assert asyncio.run(calls._image(text, "img")).size == (8, 8)
    assert asyncio.run(calls._image(text, "mask")).mode == "L"
    assert [name.rpartition("_")[0] for name in threads] == ["decode"] * 2


def test_an_image_that_was_removed_is_unknown(tmp_path: Path) -> None:
    job = SimpleNamespace(images=[{"file": "0.png"}])
    jobs: Any = SimpleNamespace(
        store=SimpleNamespace(get=lambda owner, id: job),
        file=lambda job, index: tmp_path / "0.png",
    )
    generation: Any = SimpleNamespace(settings=Settings())
    request: Any = SimpleNamespace(base_url="http://here/")
    with pytest.raises(UnknownName, match="img"):
        asyncio.run(Calls(jobs, generation, request, "")._image("/jobs/one/images/0", "img"))
