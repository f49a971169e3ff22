"""The front door's Lambda package has all that its handler imports, and no more than Lambda has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from hosts.queue.front.package import ROOT, sources

#: refuses every module that is neither Python's, nor in the package, nor part of AWS Lambda
SCRIPT = """
import sys
allowed = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
allowed |= {"boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3"}
allowed |= {"hosts", "api", "runnables"}

class OnlyLambdas:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = allowed | set(sys.stdlib_module_names)
        if top not in known and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"Lambda has no {name}", name=name)

sys.meta_path.insert(0, OnlyLambdas())
sys.path.insert(0, sys.argv[1])
from hosts.queue.front import handler
assert handler.__file__.startswith(sys.argv[1])
print(handler.answer(None, {"httpMethod": "GET", "path": "/"})["statusCode"])
"""


def unpacked(folder: Path) -> Path:
    for path in sources():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def imported(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", SCRIPT, str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_handler_is_imported_from_the_package_alone(tmp_path: Path) -> None:
    done = imported(unpacked(tmp_path))
    assert (done.returncode, done.stdout) == (0, "404\n"), done.stderr


def test_a_file_that_is_missing_is_found(tmp_path: Path) -> None:
    (unpacked(tmp_path) / "api/webui/body.py").unlink()
    assert "api.webui.body" in imported(tmp_path).stderr
