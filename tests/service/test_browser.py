"""Swagger UI in headless Chromium: "Try it out" draws an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from tests.service.browser import chromium, hosts, needs_chromium
from tests.service.server import Server

pytestmark = needs_chromium


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    with chromium(tmp_path / "profile") as driver:
        yield driver


def test_try_it_out_draws_an_image(server: Server, browser: WebDriver, tmp_path: Path) -> None:
    browser.get(server.url)
    wait = WebDriverWait(browser, 300)

    def click(selector: str) -> None:
        element = wait.until(lambda b: b.find_element(By.CSS_SELECTOR, selector))
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    block = "[id$=txt2img]"
    click(f"{block} .opblock-summary-control")
    click(f"{block} .try-out__btn")
    assert "cyberpunk" in browser.find_element(By.CSS_SELECTOR, f"{block} textarea").text
    click(f"{block} .execute")
    image = wait.until(
        lambda b: b.find_element(By.CSS_SELECTOR, f"{block} .live-responses-table img")
    )
    wait.until(lambda b: int(image.get_property("naturalWidth") or 0) > 0)
    assert image.get_property("naturalWidth") == 128
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
    browser.save_screenshot(str(tmp_path / "swagger.png"))
    assert hosts(browser) == {server.url.removeprefix("http://")}  # it works without the internet
