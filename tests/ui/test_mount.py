"""The page beside the service: opened when asked for, nothing but its own paths."""

from __future__ import annotations

import time

from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.http.gateway import Gateway
from runnables.settings import Settings
from ui.mount import Mounted


def test_the_page_opens_when_it_is_asked_for() -> None:
    page = Mounted(Starlette())
    assert page.owns("/ui") and page.owns("/ui/config") and not page.owns("/uis")
    gateway = Gateway(Settings())
    gateway.page, host = page, Starlette()
    gateway.serve(host)
    host.add_middleware(gateway.around)
    with TestClient(host) as client:
        assert client.get("/ui", follow_redirects=False).headers["location"] == "ui/"
        first = client.get("/ui/").text
        assert 'http-equiv="refresh"' in first
        end = time.monotonic() + 60
        while (shown := client.get("/ui/").text) == first and time.monotonic() < end:
            time.sleep(0.2)
        assert "gradio" in shown
        assert client.get("/ui/theme.css").status_code == 200
