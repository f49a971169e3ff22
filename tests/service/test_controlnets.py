"""The example of docs/features.md, as printed but for the port."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from PIL import Image

from tests.service.server import ROOT, Server


def test_the_example(server: Server, tmp_path: Path, photo: Image.Image) -> None:
    text = (ROOT / "docs" / "features.md").read_text()
    (example,) = re.findall(r"^curl .*control=@.*$", text, re.MULTILINE)
    photo.save(tmp_path / "edges.png")
    command = example.replace("http://127.0.0.1:3000", server.url).replace("curl", "curl -sSf")
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, timeout=300)
    with Image.open(tmp_path / "output.jpg") as image:
        assert image.size == (128, 128)
