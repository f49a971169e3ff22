"""These tests check what a start says to a person."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from hosts.banner import banner, listening
from runnables.settings import Settings

JOBS = Path("/state/jobs")
MODEL = {"name": "embedded", "device": "cpu", "precision": "float32"}


def test_it_says_where_and_what() -> None:
    text = banner(Settings(), MODEL, "http://127.0.0.1:3000", JOBS)
    for part in (
        "http://127.0.0.1:3000/txt2img",
        "http://127.0.0.1:3000/ui",
        "embedded (a small demo model) on cpu in float32",
        "everybody",
        "/state/jobs",
    ):
        assert part in text


def test_what_differs() -> None:
    text = banner(Settings(model="/models/own", ui=False, api_keys="secret"), MODEL, None, JOBS)
    assert "http://" not in text
    assert "demo" not in text
    assert "needed" in text
    assert "secret" not in text


def test_the_address_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        own = [
            one
            for one in psutil.Process().net_connections("tcp")
            if one.laddr.port == server.getsockname()[1]
        ]
        monkeypatch.setattr(psutil.Process, "net_connections", lambda self, kind: own)
        assert listening() == f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_process_that_does_not_listen_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "net_connections", lambda self, kind: [])
    assert listening() is None
