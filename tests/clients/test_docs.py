"""The examples of docs/clients.md, as printed but for the port."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.service.server import ROOT, Server

TEXT = (ROOT / "docs" / "clients.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
CURLS = [line for line in TEXT.splitlines() if line.startswith("curl") and "/imagine" in line]


def _here(example: str, server: Server) -> str:
    port = server.url.rpartition(":")[2]
    moved = example.replace("127.0.0.1:3000", f"127.0.0.1:{port}").replace("=3000", f"={port}")
    assert moved != example
    return moved


@pytest.mark.parametrize("example", PYTHON)
def test_python(server: Server, tmp_path: Path, example: str) -> None:
    code = _here(example, server)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
    written = sorted(tmp_path.iterdir())
    assert written
    assert all(Image.open(path).size == (128, 128) for path in written)


@pytest.mark.parametrize("example", CURLS)
def test_curl(server: Server, tmp_path: Path, example: str) -> None:
    command = ["bash", "-ec", _here(example, server)]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    assert Image.open(tmp_path / "output.png").size == (128, 128)


def test_all_examples_are_found() -> None:
    assert (len(PYTHON), len(CURLS)) == (3, 1)
