"""What callers read where the model could not be loaded."""

from __future__ import annotations

import re
import threading

import pytest
from starlette.testclient import TestClient

from api.app import Api
from hosts.host import Host
from runnables.errors import ConfigurationError
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings

INSIDE = "/srv/models/secret.safetensors"


def readyz(error: Exception) -> str:
    """Return the answer of a host whose runnable raises this at its start."""

    class Failing(StableDiffusionRunnable):
        def start(self) -> None:
            raise error

    host = object.__new__(Host)  # without metrics, of which a process has one set
    host.runnable, host.settled = Failing(Settings()), threading.Event()
    host.api = Api(host.runnable)
    host._load()
    assert host.settled.is_set()
    answer = TestClient(host.api.app()).get("/readyz")
    assert answer.status_code == 503
    return str(answer.json()["error"])


def test_an_internal_error_is_a_number_and_the_log_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = readyz(RuntimeError(INSIDE))
    assert INSIDE not in told and INSIDE in caplog.text
    found = re.search(r"internal error \w+", told)
    assert found and found[0] in caplog.text


def test_what_the_operator_has_to_mend_is_named() -> None:
    assert "SD_MODEL is not there" in readyz(ConfigurationError("SD_MODEL is not there"))
