"""Clients generated from the OpenAPI document, and packages that need an environment of their own.

`LONG=1` runs this: it installs packages of `requirements/clients.txt` and of `package.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api import openapi
from tests.long import long
from tests.service.server import ROOT, Server

pytestmark = long
HERE = Path(__file__).parent / "generated"
#: fields that have a default may be left out
OPTIONAL = "--default-non-nullable=false"


def run(*command: str | Path, cwd: Path) -> str:
    """Return what a command prints; what it says of a failure is the test's."""
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the document, and with what is used here."""
    folder = tmp_path_factory.mktemp("generated") / "work"
    shutil.copytree(HERE, folder)
    (folder / "docs.json").write_text(json.dumps(openapi.document(), indent=1))
    return folder


def one_body_each(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with one kind of body for each operation, JSON where there are two.

    Of two kinds openapi-python-client 0.29.1 makes a module that lacks an import.
    """
    reduced: dict[str, Any] = json.loads(json.dumps(document))
    for methods in reduced["paths"].values():
        for operation in methods.values():
            body = operation.get("requestBody", {})
            if len(body.get("content", ())) > 1:
                body["content"].pop("multipart/form-data")
    return reduced


@pytest.fixture(scope="module")
def python(folder: Path) -> Path:
    """A Python with the packages of `requirements/clients.txt`."""
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    wanted = ROOT / "requirements" / "clients.txt"
    run(python, "-m", "pip", "install", "-q", "-r", wanted, cwd=folder)
    return python


@pytest.fixture(scope="module")
def node(folder: Path) -> Path:
    """The folder of the commands that `package.json` names."""
    if not shutil.which("npm"):
        pytest.skip("there is no node here")
    run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", cwd=folder)
    return folder / "node_modules" / ".bin"


def test_a_python_client_is_generated_installed_and_used(
    folder: Path, python: Path, server: Server
) -> None:
    generate = python.parent / "openapi-python-client"
    (folder / "one.json").write_text(json.dumps(one_body_each(openapi.document())))
    options = ("--config", "python.yml", "--meta", "setup", "--fail-on-warning")
    run(generate, "generate", "--path", "one.json", "--output-path", "made", *options, cwd=folder)
    run(python, "-m", "pip", "install", "-q", "./made", cwd=folder)
    assert "used" in run(python, "use.py", server.url, cwd=folder)


def test_litellm(folder: Path, python: Path, server: Server) -> None:
    assert "used" in run(python, "lite.py", server.url, cwd=folder)


def test_the_document_is_clean(folder: Path, node: Path) -> None:
    found = run(node / "redocly", "lint", "docs.json", "--format=json", cwd=folder)
    totals = json.loads(found[found.index("{") : found.rindex("}") + 1])["totals"]
    assert (totals["errors"], totals["warnings"]) == (0, 0), found


def test_a_typescript_client_compiles(folder: Path, node: Path) -> None:
    run(node / "openapi-typescript", "docs.json", "-o", "api.d.ts", OPTIONAL, cwd=folder)
    run(node / "tsc", "--noEmit", "--strict", "--target", "es2022", "use.ts", cwd=folder)
