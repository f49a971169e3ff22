"""Every file of examples/ runs as it is."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.service.browser import chromium, needs_chromium
from tests.service.server import ROOT, Server, serve

EXAMPLES = ROOT / "examples"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
#: file -> what it writes, what it prints
RUN: dict[str, tuple[set[str], str]] = {
    "curl.sh": ({"circle.jpg", "square.jpg"}, ""),
    "with_requests.py": ({"image-0.png", "image-1.png"}, "400 width must be a multiple of 8"),
    "with_openai.py": ({"made.png", "changed.png"}, ""),
    "job.py": ({"job.jpg"}, "succeeded 20 of 20"),
    "webhook.py": (set(), "succeeded"),
}
IN_A_BROWSER = {"browser.html"}
ELSEWHERE = {"mcp_client.py"}  # tests/api/mcp runs it


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that pages may call, and that sends webhooks to this machine."""
    settings = {"SD_CORS_ORIGINS": "*", "SD_WEBHOOK_SECRET": SECRET, "SD_FETCH_INSECURE": "true"}
    with serve(tmp_path_factory.mktemp("examples") / "log", **settings) as running:
        yield running


def test_all_are_run() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {
        "README.md",
        *RUN,
        *IN_A_BROWSER,
        *ELSEWHERE,
    }


@pytest.mark.parametrize("name", RUN)
def test_it_runs(open_server: Server, tmp_path: Path, name: str) -> None:
    files, text = RUN[name]
    done = subprocess.run(
        ["sh" if name.endswith(".sh") else sys.executable, EXAMPLES / name],
        cwd=tmp_path,
        env={**os.environ, "SERVICE": open_server.url, "SD_WEBHOOK_SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert text in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == files
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.size == (128, 128)


@needs_chromium
def test_the_page_generates(open_server: Server, tmp_path: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(EXAMPLES))
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as pages,
        chromium(tmp_path / "profile") as browser,
    ):
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{pages.server_port}/browser.html"
        browser.get(f"{page}?service={open_server.url}")
        browser.find_element(By.CSS_SELECTOR, "button").click()
        image = browser.find_element(By.CSS_SELECTOR, "#image")
        WebDriverWait(browser, 300).until(lambda _: image.get_property("naturalWidth") == 128)
        assert "seed" in browser.find_element(By.CSS_SELECTOR, "#state").text
        pages.shutdown()
