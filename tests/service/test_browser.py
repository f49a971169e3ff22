"""Swagger UI in headless Chromium: "Try it out" draws an image."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from tests.service.server import Server

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs Debian's chromium and chromium-driver (.ci/run)"
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.add_argument("--window-size=1200,2000")
    driver = Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


def test_try_it_out_draws_an_image(server: Server, browser: WebDriver, tmp_path: Path) -> None:
    browser.get(server.url)
    wait = WebDriverWait(browser, 60)

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
