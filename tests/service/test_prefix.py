"""The service below a path prefix, in a browser, behind a proxy that strips the prefix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.service.browser import chromium, hosts, needs_chromium
from tests.service.proxy import stripping
from tests.service.server import Server
from tests.ui.browsing import Page

PREFIX = "/images/sd"


@pytest.fixture(scope="module")
def proxied(server: Server) -> Iterator[Server]:
    """The service as its visitors see it: its address is the proxy's."""
    with stripping(server.url, PREFIX) as url:
        yield replace(server, url=url)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile"), height=1400) as driver:
        yield driver


def test_the_answers_name_the_prefix(proxied: Server) -> None:
    document = httpx.get(f"{proxied.url}/docs.json").json()
    assert document["servers"] == [{"url": PREFIX}]
    parameters = {"prompt": "x", "num_inference_steps": 1}
    order = {"task": "txt2img", "parameters": parameters}
    made = httpx.post(f"{proxied.url}/jobs", json=order)
    job = f"{PREFIX}/jobs/{made.json()['id']}"
    assert made.headers["location"] == job
    with httpx.stream("GET", f"{proxied.url}/jobs/{made.json()['id']}/events") as events:
        assert f"{job}/images/0" in list(events.iter_lines())[-2]
    origin = proxied.url.removesuffix(PREFIX)
    found = httpx.get(origin + job).json()
    listed = httpx.get(f"{proxied.url}/jobs?limit=1").json()["jobs"][0]
    for images in (found["images"], listed["images"]):
        assert httpx.get(origin + images[0]["url"]).headers["content-type"] == "image/jpeg"
    refused = httpx.post(f"{proxied.url}/v1/images/generations", json={"n": 0})
    assert set(refused.json()) == {"error"} and "message" in refused.json()["error"]


def test_the_page_is_redirected_to_and_metrics_are_found(proxied: Server) -> None:
    moved = httpx.get(f"{proxied.url}/ui")
    assert (moved.status_code, str(moved.next_request and moved.next_request.url)) == (
        307,
        f"{proxied.url}/ui/",
    )
    assert "sd_" in httpx.get(f"{proxied.url}/metrics").text


@needs_chromium
def test_the_page_generates(proxied: Server, browser: Chrome) -> None:
    page = Page(browser, proxied.url)
    page.open()
    page.ask("a city", steps=3)
    assert page.generate().shape == (128, 128, 3)
    assert page.complaints() == []
    assert hosts(browser) == {proxied.url.removeprefix("http://").removesuffix(PREFIX)}


@needs_chromium
def test_swagger_generates(proxied: Server, browser: Chrome) -> None:
    browser.get(f"{proxied.url}/")
    wait = WebDriverWait(browser, 300)
    for selector in (".opblock-summary-control", ".try-out__btn", ".execute"):
        where = (By.CSS_SELECTOR, f"[id$=txt2img] {selector}")
        element = wait.until(lambda b, where=where: b.find_element(*where))
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
    answer = (By.CSS_SELECTOR, "[id$=txt2img] .live-responses-table img")
    image = wait.until(lambda b: b.find_element(*answer))
    wait.until(lambda b: int(image.get_property("naturalWidth") or 0) == 128)
