"""`python -m ui`: the Gradio page in front of a service elsewhere."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver import Chrome
from starlette.testclient import TestClient

from tests.service.browser import hosts, needs_chromium, resize
from tests.service.server import Server, run
from tests.ui.browsing import Page
from ui.client import Service, ServiceError, problem
from ui.generation import line


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ""),
        ({"SD_UI_SERVICE": "http://a:3000/", "SERVICE_NAME": "b"}, "http://a:3000"),
        ({"SERVICE_NAME": "http://ray:8000", "MODEL_ENDPOINT": "/imagine"}, "http://ray:8000"),
        ({"SERVICE_NAME": "ray:8000", "MODEL_ENDPOINT": "serve/imagine"}, "http://ray:8000/serve"),
    ],
)
def test_where_the_service_is(environment: dict[str, str], expected: str) -> None:
    from ui.__main__ import address  # with Gradio, which takes 5 s: not while tests are collected

    assert address(environment) == expected


def test_errors_are_the_services_own_words() -> None:
    body = {"error": "no", "detail": [{"loc": ["parameters", "seed"], "msg": "no"}]}
    refusing = httpx.MockTransport(lambda request: httpx.Response(400, json=body))
    service = Service(httpx.AsyncClient(transport=refusing, base_url="http://service"), "ours")
    with pytest.raises(ServiceError) as caught:
        asyncio.run(service.submit({"prompt": "x"}))
    assert (caught.value.message, caught.value.field, caught.value.status) == ("no", "seed", 400)
    assert problem("no JSON", 502).message == "the service answered 502"


def test_a_service_that_is_not_there() -> None:
    away = Service(httpx.AsyncClient(base_url="http://127.0.0.1:9"))
    with pytest.raises(ServiceError, match="cannot be reached"):
        asyncio.run(away.models())


def test_progress_in_words() -> None:
    assert line({"state": "queued", "position": 2}) == "Waiting, 2 before this"
    shown = line({"state": "running", "step": 5, "steps": 20, "eta_s": 3.2})
    assert shown == "Step 5 of 20 · about 3 s left"


def test_it_answers_probes_and_takes_no_files() -> None:
    from ui.__main__ import application

    with TestClient(application("http://127.0.0.1:9")) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/config").json()["title"] == "Stable Diffusion"
        files = {"files": ("a.png", io.BytesIO(b"x"))}
        for path in ("/upload", "/gradio_api/upload", "/gradio_api/upload/"):
            assert client.post(path, files=files).status_code == 404


@pytest.fixture(scope="module")
def alone(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("ui") / "log"
    command = [sys.executable, "-m", "ui", "--service", server.url]
    with run(command, log, False, {}) as running:
        for _ in range(600):
            try:
                httpx.get(f"{running.url}/healthz").raise_for_status()
                break
            except httpx.HTTPError:
                asyncio.run(asyncio.sleep(0.2))
        yield running


@needs_chromium
def test_it_generates_and_a_closed_page_stops_its_job(
    browser: Chrome, server: Server, alone: Server, tmp_path: Path
) -> None:
    resize(browser, 1200, 1000)
    hosts(browser)
    page = Page(browser, server.url)
    browser.get(alone.url)
    page.until(lambda: page.shown("#prompt textarea, #prompt input"))
    page.fill("#prompt textarea, #prompt input", "two hills")
    page.fill("#steps input", "60")
    page.click("#generate")
    page.until(lambda: "of 60" in page.find("#line").text)
    page.until(lambda: page.find("#line").text.startswith("seed "))
    job = page.newest()
    assert (job["state"], job["parameters"]["prompt"]) == ("succeeded", "two hills")
    assert page.find("#line").text == f"seed {job['parameters']['seed']}"
    assert page.shown("#result img")
    assert hosts(browser) == {alone.url.removeprefix("http://")}
    page.fill("#steps input", "150")
    page.click("#generate")
    page.until(lambda: "of 150" in page.find("#line").text)
    page.click("#stop")
    page.until(lambda: page.find("#line").text == "Stopped.")
    assert page.newest()["state"] == "cancelled"
    page.click("#generate")
    page.until(lambda: "of 150" in page.find("#line").text)
    browser.get("about:blank")
    page.until(lambda: page.newest()["state"] == "cancelled")
