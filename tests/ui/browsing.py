"""The page as a visitor handles it, in headless Chromium."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

DROP = """
const bytes = Uint8Array.from(atob(arguments[1]), c => c.charCodeAt(0));
const carried = new DataTransfer();
carried.items.add(new File([bytes], arguments[2], {type: "image/png"}));
for (const name of ["dragenter", "dragover", "drop"])
  arguments[0].dispatchEvent(
    new DragEvent(name, {dataTransfer: carried, bubbles: true, cancelable: true}));
"""
#: the pixels of what an <img> shows
PIXELS = """
const [image, done] = arguments;
image.decode().catch(() => {}).then(() => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext("2d").drawImage(image, 0, 0);
  done(canvas.toDataURL("image/png").split(",")[1]);
});
"""
AXE = Path(__file__).with_name("node_modules") / "axe-core" / "axe.min.js"
RUN_AXE = "axe.run().then((found) => arguments[0](found.violations))"


class Page:
    """The page of one service."""

    def __init__(self, driver: Chrome, url: str, headers: dict[str, str] | None = None) -> None:
        self.driver, self.url, self.headers = driver, url, headers or {}
        stale = [NoSuchElementException, StaleElementReferenceException]
        self._wait = WebDriverWait(driver, 300, ignored_exceptions=stale)

    def load(self) -> None:
        """Open the page, or load it again."""
        self.driver.get(f"{self.url}/ui/")

    def open(self) -> None:
        """Open it, and wait until it is ready."""
        self.load()
        self.until_ready()

    def until_ready(self) -> None:
        self.until(lambda: self.find("#generate").is_enabled())

    def forget(self) -> None:
        """Become a new visitor."""
        self.driver.get(f"{self.url}/livez")  # of the same origin, and soon there
        self.driver.execute_script("localStorage.clear(); sessionStorage.clear()")

    def find(self, selector: str) -> WebElement:
        return self._wait.until(lambda d: d.find_element(By.CSS_SELECTOR, selector))

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition: Any) -> Any:
        try:
            return self._wait.until(lambda _: condition())
        except TimeoutException as error:
            error.msg = f"the page shows {self.find('body').text!r}"
            raise

    def shown(self, selector: str) -> bool:
        found = self.all(selector)
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

    def press(self, *keys: str) -> None:
        self.find("body").send_keys(*keys)

    def task(self, name: str) -> None:
        self.click(f"[name=task][value={name}] + span")

    def ask(self, prompt: str, steps: int = 4) -> None:
        self.fill("#prompt", prompt)
        self.fill("#num_inference_steps", str(steps))

    def generate(self) -> np.ndarray:
        """Click, wait, and look at the new picture."""
        before = self.current()
        self.click("#generate")
        self.until(lambda: self.current() not in ("", before))
        return self.picture()

    def current(self) -> str:
        """Return the id of the finished picture that is shown large; "" while there is none."""
        return self.find(".shown").get_attribute("data-picture") or ""

    def picture(self) -> np.ndarray:
        """Return what is shown large, as integers."""
        return self.pixels(".shown")

    def pixels(self, selector: str) -> np.ndarray:
        data = self.driver.execute_async_script(PIXELS, self.find(selector))
        image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        return np.asarray(image).astype(int)

    def drop(self, selector: str, data: bytes, name: str = "image.png") -> None:
        self.driver.execute_script(DROP, self.find(selector), base64.b64encode(data).decode(), name)

    def width(self) -> int:
        return int(self.driver.execute_script("return document.documentElement.scrollWidth"))

    def newest(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/jobs?limit=1", headers=self.headers)
        return dict(answer.json()["jobs"][0])

    def copied(self, kind: str) -> str:
        """Return what `copy as curl`, `python` or `job` puts on the clipboard."""
        self.driver.execute_cdp_cmd(
            "Browser.grantPermissions",
            {"permissions": ["clipboardReadWrite"], "origin": self.url},
        )
        self.click("#stage .menu summary")
        self.click(f"[data-copy={kind}]")
        self.until(lambda: self.find("#stage .note").text.startswith("Copied."))
        read = "navigator.clipboard.readText().then(arguments[0])"
        return str(self.driver.execute_async_script(read))

    def run(self, kind: str, folder: Path, **environment: str) -> np.ndarray:
        """Copy the shown picture as a command, run it in a folder, and return what it makes."""
        shown, text, before = self.current(), self.copied(kind), set(folder.iterdir())
        command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-ec", text]
        environment = {**os.environ, **environment}
        subprocess.run(
            command, cwd=folder, env=environment, check=True, timeout=300, capture_output=True
        )
        if kind == "job":
            self.until(lambda: self.newest()["state"] == "succeeded")
            job = self.newest()["id"]
            assert job not in shown
            made = httpx.get(f"{self.url}/jobs/{job}/images/0", headers=self.headers).content
        else:
            (file,) = set(folder.iterdir()) - before
            made = file.read_bytes()
        return np.asarray(Image.open(io.BytesIO(made)).convert("RGB")).astype(int)

    def violations(self) -> list[str]:
        """Return what axe-core objects to."""
        self.driver.execute_script(AXE.read_text())
        found = self.driver.execute_async_script(RUN_AXE)
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]

    def complaints(self) -> list[str]:
        """Return the browser's errors since the last call: scripts that fail, policies broken."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


def png(colour: str = "steelblue", size: tuple[int, int] = (128, 128)) -> bytes:
    """Return a picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()
