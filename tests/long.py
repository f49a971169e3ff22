"""The one switch for what takes minutes: `LONG=1 make test` runs it, too."""

from __future__ import annotations

import os

import pytest

LONG = os.environ.get("LONG", "0") not in ("", "0")
long = pytest.mark.skipif(not LONG, reason="takes minutes: LONG=1 runs it")
