"""The version stands in one place, and where others have to repeat it, it is the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

from runnables.version import VERSION

ROOT = Path(__file__).resolve().parents[1]


def test_the_project_has_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
