"""`python -m tests.ui.visit` measures a first visit of the page, and takes its screenshots.

Each visit is a browser with a new profile, which has nothing of the page: the seconds until the
first paint, until a prompt can be sent, and from the click to the finished picture. The service
runs the embedded model on all free cores. `--screenshots docs/images` writes the pictures of the
documentation anew.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from selenium.webdriver import Chrome

from tests.service.browser import chromium, resize
from tests.service.server import Server, serve
from tests.ui.browsing import Page

#: milliseconds since the navigation, once a prompt can be sent
READY = """
const done = arguments[0];
(function look() {
  if (document.querySelector("#generate")?.disabled === false) done(performance.now());
  else requestAnimationFrame(look);
})();
"""
PAINT = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
#: milliseconds from the click to the finished picture
PICTURE = """
const done = arguments[0], began = performance.now();
document.querySelector("#generate").click();
(function look() {
  if (document.querySelector(".shown")?.dataset.picture) done(performance.now() - began);
  else requestAnimationFrame(look);
})();
"""
#: what the history shows, the picture that is shown large last; seeds that turn out well
SHOWN = {
    "a penguin": 33,
    "a castle": 1,
    "a hamburger": 36,
    "a house by the sea at sunset": 1,
    "an owl": 1,
    "a rocket": 3,
}


def visit(server: Server) -> tuple[float, float, float]:
    """Return the seconds to the first paint, to the ready page, and to the first picture."""
    with (
        tempfile.TemporaryDirectory() as profile,
        chromium(Path(profile), width=1280, height=900) as driver,
    ):
        driver.set_script_timeout(300)
        page = Page(driver, server.url)
        page.load()
        ready = driver.execute_async_script(READY)
        paint = driver.execute_script(PAINT)
        page.fill("#prompt", "a rocket")
        picture = driver.execute_async_script(PICTURE)
    return paint / 1000, ready / 1000, picture / 1000


def report(server: Server, visits: int) -> str:
    """Return the table. One visit before warms the service up."""
    visit(server)
    measured = [visit(server) for _ in range(visits)]
    lines = ["| | median s | slowest s |", "|---|---|---|"]
    names = ("first paint", "a prompt can be sent", "click to first picture")
    for name, seconds in zip(names, zip(*measured, strict=True), strict=True):
        lines.append(f"| {name} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |")
    return "\n".join(lines)


def screenshots(server: Server, folder: Path) -> None:
    """Write the page on a desktop and on a phone, with a history."""
    with (
        tempfile.TemporaryDirectory() as profile,
        chromium(Path(profile), width=1280, height=900) as driver,
    ):
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        page = Page(driver, server.url)
        page.open()
        for prompt, seed in SHOWN.items():
            page.fill("#prompt", prompt)
            page.fill("#seed", str(seed))
            page.generate()
        page.until(lambda: len(page.all("#history li")) == len(SHOWN))
        page.fill("#seed", "")
        save(driver, folder / "ui-desktop.png")
        resize(driver, 390, 844)
        page.open()
        page.until(page.current)
        page.fill("#prompt", list(SHOWN)[-1])
        save(driver, folder / "ui-phone.png")


def save(driver: Chrome, file: Path) -> None:
    """Write what the window shows, from the top of the page, with nothing focused."""
    driver.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    driver.save_screenshot(str(file))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.ui.visit", description=__doc__)
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "log", SD_THREADS="0") as it:
        if chosen.screenshots:
            screenshots(it, chosen.screenshots)
        else:
            print(report(it, chosen.visits))


if __name__ == "__main__":
    main()
