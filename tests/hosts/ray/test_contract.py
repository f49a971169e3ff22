"""The HTTP contract again: the same tests, with Ray Serve as the host."""

from __future__ import annotations

from tests.service.test_bad_input import *  # noqa: F403
from tests.service.test_contract import *  # noqa: F403

del test_bentoml_client  # noqa: F821  # asks for BentoML's own schema
