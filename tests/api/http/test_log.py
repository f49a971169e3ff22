"""Log lines: one per message, whatever a caller sends; as JSON with the request they belong to."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from api.app import Api
from api.http import log
from api.http.gateway import Gateway
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings

NAMES = ("stable_diffusion", "api")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What our loggers write; they are afterwards as they were."""
    before = {
        name: (one.handlers, one.propagate, one.level)
        for name in NAMES
        if (one := logging.getLogger(name))
    }
    yield io.StringIO()
    for name, (handlers, propagate, level) in before.items():
        one = logging.getLogger(name)
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)
    logging.captureWarnings(False)


def test_no_message_forges_a_line(written: io.StringIO) -> None:
    log.configure(NAMES, "text", [logging.StreamHandler(written)])
    forged = "x\n2026-01-01 00:00:00,000 stable_diffusion: all is well\r\x1b[31m\u2028\x00"
    logging.getLogger("stable_diffusion").info("path %s", forged)
    ours = {"several_lines": True}
    lines = written.getvalue().split("\n")
    logging.getLogger("stable_diffusion").info("ready\nat http://127.0.0.1", extra=ours)
    assert written.getvalue().endswith("ready\nat http://127.0.0.1\n")
    assert len(lines) == 2 and lines[1] == ""
    assert lines[0].isprintable()
    assert r"\n2026-01-01" in lines[0] and r"\x1b[31m" in lines[0]


def test_json_lines_say_whose_they_are(written: io.StringIO) -> None:
    log.configure(NAMES, "json", [logging.StreamHandler(written)])
    settings = Settings(api_keys="secret,other", log_format="json")
    api, gateway = Api(StableDiffusionRunnable(settings)), Gateway(settings)
    gateway.serve(api.app())
    client = TestClient(gateway.around(api.app()), raise_server_exceptions=False)
    headers = {"x-api-key": "secret", "x-request-id": "mine"}
    assert client.post("/txt2img", json={"prompt": "x"}, headers=headers).status_code == 503
    assert client.post("/txt2img", json={"prompt": "x"}).status_code == 401
    try:
        raise RuntimeError("broken\nin two lines")
    except RuntimeError:
        logging.getLogger("api").exception("it failed")
    first, second, third = map(json.loads, written.getvalue().splitlines())
    known = {"level": "info", "logger": "stable_diffusion.access", "status": 503}
    assert known.items() <= first.items()
    assert first["request_id"] == first["id"] == "mine" and len(first["key"]) == 8
    assert first["time"].endswith("+00:00") and "/txt2img 503" in first["message"]
    assert second["status"] == 401 and "key" not in second, "the key of another request"
    assert third["level"] == "error" and "in two lines" in third["error"]


def test_lines_of_others_are_json_too(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = logging.StreamHandler(written)
    monkeypatch.setattr(logging.getLogger("bentoml"), "handlers", [handler])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    log.configure(NAMES, "json")
    logging.getLogger("bentoml").warning("hello")
    assert json.loads(written.getvalue())["logger"] == "bentoml"
