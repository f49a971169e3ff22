"""The web page in headless Chromium, on a real service."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.service.browser import chromium, hosts, needs_chromium, resize
from tests.service.server import Server, serve

pytestmark = needs_chromium

PROMPT, STEPS = "#prompt textarea", "#steps input[type=number]"
DROP = """
const bytes = Uint8Array.from(atob(arguments[1]), c => c.charCodeAt(0));
const carried = new DataTransfer();
carried.items.add(new File([bytes], arguments[2], {type: "image/png"}));
for (const name of ["dragenter", "dragover", "drop"])
  arguments[0].dispatchEvent(new DragEvent(name, {dataTransfer: carried, bubbles: true}));
"""
#: a file that comes earlier is shown, and not handed over
EDITOR_READY = "window.editor.ready.then(() => setTimeout(arguments[0], 200))"


class Page:
    """The page as a visitor handles it."""

    def __init__(self, driver: Chrome, server: Server) -> None:
        self.driver, self.server = driver, server
        stale = [NoSuchElementException, StaleElementReferenceException]
        self._wait = WebDriverWait(driver, 60, ignored_exceptions=stale)

    def open(self) -> None:
        self.driver.get(f"{self.server.url}/ui/")
        self.until(lambda: self.find("#title p").text == "embedded")

    def find(self, selector: str) -> WebElement:
        return self._wait.until(lambda d: d.find_element(By.CSS_SELECTOR, selector))

    def until(self, condition: Any) -> Any:
        try:
            return self._wait.until(lambda _: condition())
        except TimeoutException as error:
            error.msg = f"the stage shows {self.find('#stage').text!r}"
            raise

    def shown(self, selector: str) -> bool:
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return bool(found) and found[0].is_displayed()

    def fill(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text or Keys.DELETE)

    def value(self, selector: str) -> str:
        return str(self.find(selector).get_property("value"))

    def click(self, selector: str) -> None:
        self.until(lambda: self.shown(selector))
        button = self.find(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def tab(self, name: str) -> None:
        self.click(f"#tasks button[role=tab][data-tab-id={name}]")

    def draw(self) -> np.ndarray:
        """Click, wait, and look at the new image."""
        before = self.source() if self.shown("#result img") else ""
        self.click("#generate")
        self.until(lambda: self.shown("#result img") and self.source() != before)
        return self.image()

    def source(self) -> str:
        return str(self.find("#result img").get_attribute("src"))

    def image(self) -> np.ndarray:
        data = httpx.get(self.source()).content
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def drop(self, selector: str, data: bytes, name: str = "image.png") -> None:
        self.driver.execute_script(DROP, self.find(selector), base64.b64encode(data).decode(), name)

    def newest(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.server.url}/jobs?limit=1").json()["jobs"][0])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile"), height=1400) as driver:
        yield driver


@pytest.fixture
def page(browser: Chrome, server: Server) -> Page:
    shown = Page(browser, server)
    resize(browser, 1200, 1400)
    shown.open()
    return shown


def png(colour: str = "steelblue") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 128), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_it_draws_with_progress_and_previews(page: Page) -> None:
    page.fill(PROMPT, "View of a cyberpunk city")
    page.fill(STEPS, "60")
    page.click("#generate")
    page.until(lambda: page.shown(".stage .preview"))
    assert "of 60" in page.find(".stage p").text
    page.until(lambda: page.shown("#result img"))
    assert page.image().shape == (128, 128, 3)
    assert not page.shown(".stage") and page.shown("#generate") and not page.shown("#cancel")
    job = page.newest()
    assert f"seed {job['parameters']['seed']}" in page.find("#details").text
    assert hosts(page.driver) == {page.server.url.removeprefix("http://")}


def test_cancel_stops_the_job(page: Page) -> None:
    page.fill(PROMPT, "a forest")
    page.fill(STEPS, "150")
    page.click("#generate")
    page.click("#cancel")
    page.until(lambda: "Cancelled" in page.find("#stage").text)
    assert page.newest()["state"] == "cancelled"
    page.until(lambda: page.shown("#generate"))
    page.fill(STEPS, "4")
    page.draw()


def test_closing_the_page_stops_the_job(page: Page) -> None:
    page.fill(PROMPT, "a forest")
    page.fill("#more textarea", '{"num_inference_steps": 150, "num_images_per_prompt": 4}')
    page.click("#generate")
    page.until(lambda: page.shown(".stage .bar"))
    page.driver.get("about:blank")
    page.until(lambda: page.newest()["state"] == "cancelled")


def test_parameters_are_used_again(page: Page) -> None:
    page.fill(PROMPT, "a red circle on a blue background")
    page.fill(STEPS, "4")
    page.fill("#more textarea", '{"guidance_rescale": 0.5}')
    page.fill("#images input[type=number]", "2")
    first = page.draw()
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#gallery .thumbnail-item")) == 2
    for selector in (PROMPT, "#more textarea"):
        page.fill(selector, "")
    page.fill(PROMPT, "something else")
    page.click("#gallery .thumbnail-item:last-of-type")
    page.click("#again")
    page.until(lambda: page.value(PROMPT) == "a red circle on a blue background")
    assert page.value("#seed input, #seed textarea") != ""
    assert "guidance_rescale" in page.value("#more textarea")
    again = page.draw()
    assert np.abs(first - again).max() <= 2


def test_a_dropped_image_restores_its_parameters(page: Page) -> None:
    given = {"prompt": "two hills", "seed": 7, "num_inference_steps": 3, "width": 64}
    drawn = httpx.post(
        f"{page.server.url}/txt2img", json=given, headers={"accept": "image/png"}
    ).content
    page.drop("#restore button", drawn)
    page.until(lambda: page.value(PROMPT) == "two hills")
    assert page.value("#seed input, #seed textarea") == "7"
    again = page.draw()
    assert np.abs(again - np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB"))).max() <= 2
    page.drop("#restore button", png())
    page.until(lambda: "carries no parameters" in page.find(".toast-wrap").text)


def test_an_image_is_drawn_from_an_image(page: Page) -> None:
    page.fill(PROMPT, "a green square")
    page.fill(STEPS, "4")
    page.draw()
    page.click("#onward")
    page.until(lambda: page.shown("#picture img"))
    page.draw()
    job = page.newest()
    assert (job["task"], job["state"]) == ("img2img", "succeeded")
    assert job["parameters"]["strength"] == 0.8


def test_what_is_painted_over_is_redrawn_and_nothing_else(page: Page, tmp_path: Path) -> None:
    page.tab("inpaint")
    path = tmp_path / "photo.png"
    path.write_bytes(png())
    canvas = page.find("#editor canvas")
    page.driver.execute_async_script(EDITOR_READY)
    page.find("#editor input[type=file]").send_keys(str(path))
    page.until(lambda: page.shown("#editor canvas"))
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)

    def settled() -> bool:
        before = canvas.screenshot_as_base64
        time.sleep(0.5)
        return canvas.screenshot_as_base64 == before

    def painted() -> bool:
        """The editor takes strokes only when it is ready; the pointer ends outside."""
        before = canvas.screenshot_as_base64
        stroke = ActionChains(page.driver).move_to_element(canvas).click_and_hold()
        for _ in range(4):
            stroke = stroke.move_by_offset(6, 3)
        stroke.release().w3c_actions.pointer_action.move_to_location(2, 2)
        stroke.perform()
        return settled() and canvas.screenshot_as_base64 != before

    page.until(settled)
    page.until(painted)
    page.fill(PROMPT, "a yellow circle")
    page.fill(STEPS, "6")
    pixels = page.draw()
    assert page.newest()["task"] == "inpaint"
    red, _, blue = pixels[:16, :16].reshape(-1, 3).T
    assert (blue > red + 60).all()  # still blue, as the VAE sees it
    red, _, blue = pixels[60:68, 60:68].reshape(-1, 3).T
    assert (red > blue).all()


def test_errors_name_the_field_and_nothing_is_lost(page: Page) -> None:
    page.fill(PROMPT, "a sunset")
    page.fill(STEPS, "4")
    page.fill("#width input, #width textarea", "130")
    page.click("#generate")
    toast = page.find(".toast-wrap")
    page.until(lambda: "128" in toast.text)
    assert "width" in toast.text.lower()
    assert "128" in page.find(".stage.error").text
    page.fill("#width input, #width textarea", "128")
    page.draw()


def test_it_fits_a_phone(page: Page) -> None:
    resize(page.driver, 390, 844)
    page.open()
    page.fill(PROMPT, "a city at night")
    page.draw()
    for task in ("txt2img", "img2img", "inpaint"):
        page.tab(task)
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
    page.click("#settings button")
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
    button = page.find("#generate")
    assert button.size["height"] >= 44 and button.size["width"] >= 300
    assert page.find("#result img").size["width"] >= 300


def test_a_key_comes_before_an_upload(
    browser: Chrome, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("keys") / "log"
    with serve(log, SD_API_KEYS="secret") as server:
        page = Page(browser, server)
        page.driver.get(f"{server.url}/ui/")
        page.until(lambda: page.shown("#key input"))
        upload = f"{server.url}/ui/gradio_api/upload"
        files = {"files": ("a.png", png(), "image/png")}
        assert httpx.post(upload, files=files).status_code == 401
        page.fill("#key input", "secret")
        page.find("#key input").send_keys(Keys.TAB)
        page.until(lambda: page.find("#title p").text == "embedded")
        given = {"prompt": "two hills", "num_inference_steps": 1, "width": 64}
        headers = {"accept": "image/png", "x-api-key": "secret"}
        image = httpx.post(f"{server.url}/txt2img", json=given, headers=headers).content
        page.drop("#restore button", image)
        page.until(lambda: page.value(PROMPT) == "two hills")
        too_large = io.BytesIO()
        Image.new("1", (3000, 3000)).save(too_large, "PNG")
        cookie = {"cookie": "sd_page_key=secret"}
        files = {"files": ("a.png", too_large.getvalue(), "image/png")}
        assert httpx.post(upload, files=files, headers=cookie).status_code == 413
