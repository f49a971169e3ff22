"""`python -m hosts.queue.front.package build/front.zip`: the front door's Lambda package.

Our modules, and pydantic and OpenTelemetry for Lambda's machines (boto3 is part of Lambda).
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HANDLER = "hosts.queue.front.handler"
PLATFORM = "manylinux2014_aarch64"
PYTHON = "3.13"  # as front.tf says
NEEDS = (
    "pydantic",
    "opentelemetry-api",
    "opentelemetry-propagator-aws-xray",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-common",  # of what the service's exporter is made of
)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same sources make the same zip


def build(target: Path, *, platform: str = PLATFORM) -> None:
    """Write the zip. pip fetches what it needs for `platform`.

    Raises:
        subprocess.CalledProcessError: pip could not.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        _install(Path(folder), platform)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    _add(archive, str(path.relative_to(folder)), path.read_bytes())
            for path in sources():
                _add(archive, str(path.relative_to(ROOT)), path.read_bytes())


def sources() -> list[Path]:
    """Our files in the package: the handler's module, and all that it imports of ours."""
    found: set[Path] = set()
    waiting = [HANDLER]
    while waiting:
        for path in _files(waiting.pop()) - found:
            found.add(path)
            waiting += _imported(ast.parse(path.read_text()))
    return sorted(found)


def _files(module: str) -> set[Path]:
    """The files that importing a module of ours runs: its own, and those of its packages."""
    places = [ROOT.joinpath(*module.split(".")[:count]) for count in range(1, 9)]
    candidates = {file for one in places for file in (one / "__init__.py", one.with_suffix(".py"))}
    return {file for file in candidates if file.is_file()}


def _imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports, but those for the type checker only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from _imported(node)


def _install(folder: Path, platform: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    command += ["--platform", platform, "--python-version", PYTHON, "--only-binary", ":all:"]
    constraints = ["-c", str(ROOT / "requirements" / "constraints.txt")]
    subprocess.run([*command, *constraints, *NEEDS], check=True)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hosts.queue.front.package", description=__doc__
    )
    parser.add_argument("target", type=Path, nargs="?", default=Path("build/front.zip"))
    parser.add_argument("--platform", default=PLATFORM)
    given = parser.parse_args()
    build(given.target, platform=given.platform)
    print(f"{given.target}: {given.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
