"""`python -m hosts.queue.front.package build/front.zip`: the front door's Lambda package.

Our modules, and pydantic built for Lambda's machines (boto3 is part of Lambda).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCES = (
    "api/__init__.py",
    "api/http/validation.py",
    "api/webui/__init__.py",
    *(f"api/webui/{name}.py" for name in ("body", "catalog", "controlnet", "enlarge", "prompts")),
    "api/webui/samplers.py",
    "api/webui/translate.py",
    "hosts/__init__.py",
    "hosts/queue/*.py",
    "hosts/queue/front/*.py",
    "runnables/__init__.py",
    "runnables/attention.py",
    "runnables/parameters.py",
    "runnables/errors.py",
    "runnables/samplers/__init__.py",
    "runnables/samplers/names.py",
)
PLATFORM = "manylinux2014_aarch64"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same sources make the same zip


def build(target: Path, *, platform: str = PLATFORM) -> None:
    """Write the zip. pip fetches pydantic for `platform`.

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
    """Our files in the package."""
    return sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))


def _install(folder: Path, platform: str) -> None:
    pinned = re.findall(r"^pydantic==.*$", (ROOT / "requirements/serve.txt").read_text(), re.M)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    command += ["--platform", platform, "--python-version", "3.11", "--only-binary", ":all:"]
    constraints = ["-c", str(ROOT / "requirements" / "constraints.txt")]
    subprocess.run([*command, *constraints, *pinned], check=True)


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
