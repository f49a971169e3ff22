"""The files of the page, as every host serves them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.app import Api
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from ui import static

TSC = Path(__file__).with_name("node_modules") / ".bin" / "tsc"


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=static.routes()))


def test_the_page_is_found_with_and_without_a_slash(client: TestClient) -> None:
    assert client.get("/ui", follow_redirects=False).headers["location"] == "ui/"
    assert client.get("/ui").url.path == "/ui/"
    assert "<title>Stable Diffusion</title>" in client.get("/ui/").text
    assert client.get("/ui/none.js").status_code == 404


def test_nothing_from_outside_may_run(client: TestClient) -> None:
    for path in ("/ui/", "/ui/main.js"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in policy


def test_no_file_escapes(client: TestClient) -> None:
    for path in ("/ui/../static.py", "/ui/%2e%2e/static.py", "/ui//etc/passwd"):
        assert client.get(path).status_code == 404


def test_the_operator_may_leave_it_out() -> None:
    settings = Settings(ui=False, _env_file=None)  # type: ignore[call-arg]
    client = TestClient(Api(StableDiffusionRunnable(settings)).app())
    assert client.get("/ui/").status_code == 404


@pytest.mark.parametrize("path", sorted(static.FILES.glob("*.js")), ids=lambda path: path.name)
def test_no_script_makes_html_of_text_or_names_an_address(path: Path) -> None:
    text = path.read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in text
    assert not re.search(r"""["'`](https?:)?/[a-z/]""", text), "addresses are relative to the page"


@pytest.mark.skipif(not TSC.exists(), reason="needs npm's typescript (make page-tools)")
def test_types() -> None:
    run = subprocess.run(
        [TSC, "-p", Path(__file__).with_name("tsconfig.json")], capture_output=True, text=True
    )
    assert run.stdout == ""
