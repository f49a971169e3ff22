"""The example of docs/features.md, as printed but for the port."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from PIL import Image

from runnables.settings import EMBEDDED_MODEL
from tests import tiny
from tests.service.server import ROOT, serve


def test_the_example(tmp_path: Path, photo: Image.Image) -> None:
    text = (ROOT / "docs" / "features.md").read_text()
    (example,) = re.findall(r"^curl .*control=@.*$", text, re.MULTILINE)
    tiny.build_controlnet(tmp_path / "nets" / "canny", Path(EMBEDDED_MODEL))
    photo.save(tmp_path / "edges.png")
    with serve(tmp_path / "log", SD_CONTROLNET_DIR=str(tmp_path / "nets")) as server:
        command = example.replace("http://127.0.0.1:3000", server.url).replace("curl", "curl -sSf")
        subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, timeout=120)
    with Image.open(tmp_path / "output.jpg") as image:
        assert image.size == (128, 128)
