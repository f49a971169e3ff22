"""The front door's Lambda package has all that its handler imports, and no more than Lambda has."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import boto3
import pytest

from hosts.queue.front.package import PYTHON, ROOT, build, sources

#: refuses every module that is neither Python's, nor in the package, nor part of AWS Lambda
SCRIPT = """
import sys
allowed = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
allowed |= {"boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3"}
allowed |= {"opentelemetry", "google", "hosts", "api", "runnables"}

class OnlyLambdas:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = allowed | set(sys.stdlib_module_names)
        if top not in known and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"Lambda has no {name}", name=name)

sys.meta_path.insert(0, OnlyLambdas())
sys.path.insert(0, sys.argv[1])
from hosts.queue.front import handler, xray
assert handler.__file__.startswith(sys.argv[1])
print(handler.answer(None, {"httpMethod": "GET", "path": "/"})["statusCode"])
"""


def unpacked(folder: Path) -> Path:
    for path in sources():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def imported(folder: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, "-I", "-c", SCRIPT, str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_handler_is_imported_from_the_package_alone(tmp_path: Path) -> None:
    done = imported(unpacked(tmp_path))
    assert (done.returncode, done.stdout) == (0, "404\n"), done.stderr


def test_a_file_that_is_missing_is_found(tmp_path: Path) -> None:
    (unpacked(tmp_path) / "api/webui/body.py").unlink()
    assert "api.webui.body" in imported(tmp_path).stderr


def interpreter() -> str | None:
    """Python in Lambda's version, on the PATH or where pyenv keeps its own."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    kept = sorted(root.glob(f"versions/{PYTHON}*/bin/python"))
    return str(kept[-1]) if kept else shutil.which(f"python{PYTHON}")


@pytest.mark.skipif(interpreter() is None, reason=f"Python {PYTHON} is not installed")
def test_the_zip_is_imported_by_lambdas_python(tmp_path: Path) -> None:
    python = interpreter()
    assert python is not None
    build(tmp_path / "front.zip", platform=f"manylinux2014_{platform.machine()}")
    with zipfile.ZipFile(tmp_path / "front.zip") as package:
        package.extractall(tmp_path / "front")
    installed = Path(boto3.__file__).parents[1]
    for name in ("boto3", "botocore", "dateutil", "jmespath", "urllib3"):  # Lambda brings them
        shutil.copytree(installed / name, tmp_path / "front" / name)
    shutil.copy(installed / "six.py", tmp_path / "front")
    done = imported(tmp_path / "front", python)
    assert (done.returncode, done.stdout) == (0, "404\n"), done.stderr


def test_the_module_runs_the_version_that_the_package_is_for() -> None:
    terraform = (ROOT / "deploy/queue/terraform/front.tf").read_text()
    assert f'"python{PYTHON}"' in terraform
