"""The pinned packages against the advisories that are known: `make audit`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
AUDIT = ROOT / ".venv-audit" / "bin" / "pip-audit"
#: what pip-audit says where it finds no source; --strict makes it an error
UNREACHABLE = ("could not be audited", "not found on PyPI", "ConnectionError", "ServiceError")


@pytest.mark.skipif(not AUDIT.exists(), reason="`make audit` has not been run here")
def test_no_pinned_package_has_a_known_advisory() -> None:
    command = ["make", "--no-print-directory", "audit"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode and any(word in done.stdout + done.stderr for word in UNREACHABLE):
        pytest.skip("no source of advisories can be reached")
    assert done.returncode == 0, done.stdout + done.stderr
