"""The version stands in one place, and where others have to repeat it, it is the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

from runnables.version import VERSION

ROOT = Path(__file__).resolve().parents[1]


def test_the_project_has_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_the_changelog_tells_what_is_in_this_version() -> None:
    """Its section is not empty, and one for what comes next stands above it."""
    sections = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]
    names = [section.split("\n", 1)[0] for section in sections]
    assert names[:2] == ["Unreleased", VERSION]
    assert "\n- " in sections[1]


def test_the_readme_and_the_upgrade_notes_are_of_this_version() -> None:
    assert f"**Status of {VERSION}.**" in (ROOT / "README.md").read_text()
    assert f"\n## Upgrading to {VERSION} from " in (ROOT / "docs" / "index.md").read_text()
