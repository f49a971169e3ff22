"""The page in headless Chromium, on a real service."""

from __future__ import annotations

import base64
import io
import re
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from runnables.checkpoints.vocabulary import read
from runnables.settings import EMBEDDED_MODEL
from tests.service.browser import hosts, needs_chromium, resize
from tests.ui.browsing import AXE, Page, png

pytestmark = needs_chromium
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="needs npm's axe-core (make page-tools)")
LONG = 150  # steps


def test_it_generates_with_progress_and_previews(page: Page) -> None:
    page.ask("View of a cyberpunk city", 60)
    page.click("#generate")
    page.until(lambda: page.shown(".frame[data-state=live] .shown"))
    assert "of 60" in page.find(".frame .line").text
    page.until(page.current)
    assert page.picture().shape == (128, 128, 3)
    assert not page.shown(".frame .progress")
    job = page.newest()
    assert f"seed {job['parameters']['seed']}" in page.find("#stage .facts").text
    assert hosts(page.driver) == {page.url.removeprefix("http://")}
    assert page.complaints() == []


def test_history_survives_a_reload_and_so_does_what_is_running(page: Page) -> None:
    page.ask("two hills")
    first = page.generate()
    page.ask("a forest", LONG)
    page.click("#generate")
    page.until(lambda: page.shown(".frame .progress"))
    page.open()
    page.until(lambda: page.shown(".frame .progress"))
    page.until(lambda: len(page.all("#history li")) == 1)
    page.click("#history li button")
    page.until(page.current)
    assert np.array_equal(page.picture(), first)
    page.press(Keys.ESCAPE)
    page.until(lambda: page.newest()["state"] == "cancelled")


def test_the_history_of_another_browser_is_not_shown(page: Page) -> None:
    page.ask("two hills")
    page.generate()
    page.forget()
    page.open()
    page.until(lambda: page.shown("#history .empty"))
    page.click("#others")
    page.until(lambda: len(page.all("#history li")) >= 1)


def test_several_requests_wait_with_an_estimate_and_each_can_be_stopped(page: Page) -> None:
    for prompt in ("one", "two", "three"):
        page.ask(prompt, LONG)
        page.click("#generate")
        page.until(lambda prompt=prompt: page.newest()["parameters"]["prompt"] == prompt)
    page.until(lambda: len(page.all("#queue li")) == 3)
    page.until(lambda: re.search(r"about \d+ (s|min) left", page.find("#queue").text))
    page.click("#queue li:nth-child(2) .stop")
    page.until(lambda: page.newest() and len(page.all("#queue li")) == 2)
    assert [row.text.split("\n")[0] for row in page.all("#queue li")] == ["one", "three"]
    page.press(Keys.ESCAPE)
    page.until(lambda: page.find(".frame .line").text != "" and not page.shown("#queue"))
    page.press(Keys.ESCAPE)
    page.until(lambda: page.newest()["state"] == "cancelled")
    page.until(lambda: not page.shown(".frame .progress"))


def test_examples_and_earlier_prompts_are_one_click_away(page: Page) -> None:
    chips = page.all("#chips button")
    assert len(chips) >= 5
    text = chips[1].text
    chips[1].click()
    assert page.value("#prompt") == text
    page.fill("#num_inference_steps", "2")
    page.generate()
    assert page.find("#stage .note").text == "made by a small demo model"
    page.fill("#prompt", "")
    page.click("#past summary")
    page.click("#past li button")
    assert page.value("#prompt") == text
    page.fill("#prompt", "half written")
    page.find("#prompt").send_keys(Keys.ALT, Keys.ARROW_UP)
    assert page.value("#prompt") == text
    page.find("#prompt").send_keys(Keys.ALT, Keys.ARROW_DOWN)
    assert page.value("#prompt") == "half written"


def test_every_example_is_something_that_the_demo_model_knows(page: Page) -> None:
    vocabulary = read(Path(EMBEDDED_MODEL))
    assert vocabulary is not None
    chips = [chip.text for chip in page.all("#chips button")]
    assert len(chips) >= 5
    for text in chips:
        assert vocabulary.hint(text) == "made by a small demo model", text


def test_the_page_says_that_the_model_is_a_demo_and_what_it_knows(page: Page) -> None:
    assert "demo model" in page.find("#about").text
    page.ask("gluon chromodynamics", 2)
    page.generate()
    note = page.find("#stage .note").text
    assert "knows none of these words; it knows" in note and "penguin" in note


def test_a_locked_seed_stays(page: Page) -> None:
    page.ask("a red circle on a blue background")
    page.generate()
    seed = page.newest()["parameters"]["seed"]
    page.generate()
    assert page.newest()["parameters"]["seed"] != seed
    seed = page.newest()["parameters"]["seed"]
    page.click("#lock")
    assert page.value("#seed") == str(seed)
    page.generate()
    assert page.newest()["parameters"]["seed"] == seed
    page.click("#lock")
    assert page.value("#seed") == ""


def test_settings_are_used_again(page: Page) -> None:
    page.ask("a red circle on a blue background")
    page.click("details[data-field=more] summary")
    page.fill("#more", '{"guidance_rescale": 0.5}')
    page.fill("#num_images_per_prompt", "2")
    page.click("[value='160x104'] + span")
    page.generate()
    page.until(lambda: len(page.all("#history li")) == 2)
    page.click("#history li:nth-child(2) button")
    page.until(lambda: page.current().endswith("/1"))
    second = page.picture()
    page.click("#start-over")
    page.fill("#prompt", "something else")
    assert page.value("#more") == page.value("#width") == ""
    page.click("[data-action=recall]")
    assert page.value("#prompt") == "a red circle on a blue background"
    assert (page.value("#width"), page.value("#height")) == ("160", "104")
    assert page.value("#more") == '{"guidance_rescale":0.5}'
    assert np.abs(page.generate() - second).max() <= 2


def test_a_dropped_picture_brings_its_settings(page: Page) -> None:
    given = {"prompt": "two hills", "seed": 7, "num_inference_steps": 3, "width": 64}
    accept = {"accept": "image/png"}
    made = httpx.post(f"{page.url}/txt2img", json=given, headers=accept, timeout=300).content
    page.drop("main", made)
    page.until(lambda: page.value("#prompt") == "two hills")
    assert (page.value("#seed"), page.value("#width")) == ("7", "64")
    expected = np.asarray(Image.open(io.BytesIO(made)).convert("RGB"))
    assert np.abs(page.generate() - expected).max() <= 2
    page.drop("main", png(), "plain.png")
    page.until(lambda: "plain.png carries no settings" in page.find("#message").text)


def test_a_picture_goes_on_and_is_compared_with_what_came_before(page: Page) -> None:
    page.ask("a green square")
    first = page.generate()
    page.click("[data-action=img2img]")
    page.until(lambda: page.shown("#img-slot img"))
    page.generate()
    job = page.newest()
    assert (job["task"], job["state"]) == ("img2img", "succeeded")
    assert job["parameters"]["strength"] == 0.8
    page.click("[data-action=compare]")
    page.until(lambda: page.shown(".frame .before"))
    assert np.array_equal(page.pixels(".before"), first)
    page.find(".divider").send_keys(Keys.HOME)
    clip = "return getComputedStyle(document.querySelector('.before')).clipPath"
    assert page.driver.execute_script(clip) == "inset(0px 100% 0px 0px)"
    page.find(".divider").send_keys(Keys.END)
    assert page.driver.execute_script(clip) in ("inset(0px)", "inset(0px 0% 0px 0px)")
    page.press(Keys.ESCAPE)
    assert not page.shown(".frame .before")


def test_a_picture_goes_on_to_be_painted_over(page: Page) -> None:
    page.ask("a green square")
    page.generate()
    page.click("[data-action=inpaint]")
    page.until(lambda: page.find("#painter canvas").get_property("width") == 128)
    assert page.value("#prompt") == "a green square"
    stroke(page)
    page.generate()
    assert page.newest()["task"] == "inpaint"


def test_a_picture_is_enlarged(page: Page) -> None:
    page.ask("a green square")
    page.generate()
    page.click("[data-action=upscale]")
    assert (page.value("#upscaler"), page.value("#scale")) == ("lanczos", "2")
    assert not page.shown("#prompt") and not page.shown("#settings")
    assert page.generate().shape == (256, 256, 3)
    assert page.find("[data-action=download]").get_attribute("download").endswith("256x256.png")


def test_what_is_red_is_repainted_and_nothing_else(page: Page) -> None:
    page.task("inpaint")
    page.drop("#img-slot .target", png(), "photo.png")
    page.until(lambda: page.find("#painter canvas").get_property("width") == 128)
    page.fill("#prompt", "a red heart")
    page.click("#generate")
    page.until(lambda: "paint over" in page.find("[data-field=mask] .error").text)
    stroke(page)
    colour = (
        "const c = arguments[0]; const at = c.getContext('2d').getImageData(64, 64, 1, 1).data;"
        "return [...at, Number(getComputedStyle(c).opacity)]"
    )
    assert page.driver.execute_script(colour, page.find("canvas")) == pytest.approx(
        [255, 45, 61, 255, 0.5], abs=2
    )
    assert not page.shown("[data-field=mask] .error")
    page.fill("#num_inference_steps", "6")
    page.fill("#strength", "1")  # with less the blue below the stroke may stay
    page.fill("#seed", "3")  # with some seeds a thin stroke becomes blue again
    pixels = page.generate()
    assert page.newest()["task"] == "inpaint"
    corner, middle = (
        part.reshape(-1, 3).astype(int) for part in (pixels[:4, :4], pixels[56:72, 56:72])
    )
    assert (corner[:, 2] > corner[:, 0]).all()  # still blue, as the VAE sees it
    assert np.abs(corner - corner.mean(0)).max() < 20  # and of one colour
    assert np.abs(middle - corner.mean(0)).max() > 60


def test_the_mask_can_be_undone_erased_and_inverted(page: Page) -> None:
    page.task("inpaint")
    page.drop("#img-slot .target", png())
    page.until(lambda: page.find("#painter canvas").get_property("width") == 128)
    share = (
        "const c = arguments[0], d = c.getContext('2d').getImageData(0, 0, 128, 128).data;"
        "return d.filter((v, i) => i % 4 == 3 && v > 127).length / 128 / 128"
    )

    def painted() -> float:
        return float(page.driver.execute_script(share, page.find("canvas")))

    stroke(page)
    before = painted()
    assert 0 < before < 0.3
    page.click("[data-tool=invert]")
    assert painted() == pytest.approx(1 - before, abs=0.02)
    page.click("[data-tool=undo]")
    assert painted() == pytest.approx(before, abs=0.002)
    page.click("[data-tool=eraser]")
    stroke(page)
    assert painted() < 0.002
    page.click("[data-tool=clear]")
    assert painted() == 0


def stroke(page: Page) -> None:
    """Paint through the middle of the picture."""
    canvas = page.find("#painter canvas")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    chain = ActionChains(page.driver).move_to_element_with_offset(canvas, -30, 0).click_and_hold()
    for _ in range(6):
        chain = chain.move_by_offset(10, 0)
    chain.release().perform()


def test_errors_stand_beside_the_field_and_leave_the_picture_alone(page: Page) -> None:
    page.ask("a sunset")
    page.generate()
    shown = page.current()
    page.click("[value=own] + span")
    page.fill("#width", "130")
    page.click("#generate")
    error = "[data-field=width] > .error"
    page.until(lambda: "128" in page.find(error).text)
    assert page.find("#width").get_attribute("aria-invalid") == "true"
    assert page.find("#width").get_attribute("aria-describedby") == page.find(error).get_attribute(
        "id"
    )
    assert page.current() == shown and page.shown(".frame .shown")
    page.fill("#width", "128")
    assert not page.shown(error)
    page.fill("#num_inference_steps", "500")
    page.click("#generate")
    page.until(lambda: page.shown("[data-field=num_inference_steps] > .error"))
    assert "150" in page.find("[data-field=num_inference_steps] > .error").text
    page.fill("#num_inference_steps", "2")
    page.fill("#seed", "many")
    page.click("#generate")
    page.until(lambda: "whole number" in page.find("[data-field=seed] > .error").text)
    page.fill("#seed", "")
    page.fill("#prompt", "")
    page.press(Keys.CONTROL, Keys.ENTER)
    page.until(lambda: page.shown("[data-field=prompt] > .error"))
    page.fill("#prompt", "a sunset")
    page.generate()


def test_the_keyboard_generates(page: Page) -> None:
    page.ask("a sunset", 2)
    page.find("#prompt").send_keys(Keys.CONTROL, Keys.ENTER)
    page.until(page.current)


def test_the_lightbox_shows_one_after_the_other(page: Page) -> None:
    for prompt in ("a red circle", "a green square"):
        page.ask(prompt, 2)
        page.generate()
    page.until(lambda: len(page.all("#history li")) == 2)
    page.click(".frame .open")
    box = "#lightbox[open]"
    page.until(lambda: page.find(f"{box} p").text.startswith("a green square"))
    page.find(box).send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: page.find(f"{box} p").text.startswith("a red circle"))
    name = str(page.find(f"{box} a").get_attribute("download"))
    assert re.fullmatch(r"a-red-circle-seed-\d+\.png", name)
    page.find(box).send_keys(Keys.ESCAPE)
    page.until(lambda: not page.shown("#lightbox"))
    page.until(lambda: page.find("#stage .title").text == "a red circle")


#: what the mask's canvas shows, as the file that a command wants: white is repainted
MASK = """
const {width, height} = arguments[0], out = document.createElement("canvas");
[out.width, out.height] = [width, height];
const pixels = arguments[0].getContext("2d").getImageData(0, 0, width, height);
for (let at = 0; at < pixels.data.length; at += 4) {
  pixels.data.fill(pixels.data[at + 3] > 127 ? 255 : 0, at, at + 3);
  pixels.data[at + 3] = 255;
}
out.getContext("2d").putImageData(pixels, 0, 0);
return out.toDataURL("image/png").split(",")[1];
"""


@pytest.mark.parametrize("kind", ["curl", "python", "job"])
def test_a_copied_command_makes_the_same_picture(page: Page, tmp_path: Path, kind: str) -> None:
    page.ask('it\'s a "cat"; $HOME `x` & <é>, 50% \\ off')
    shown = page.generate()
    assert np.abs(page.run(kind, tmp_path) - shown).max() <= 2


@pytest.mark.parametrize("kind", ["curl", "python", "job"])
@pytest.mark.parametrize("task", ["img2img", "inpaint", "upscale"])
def test_a_copied_command_takes_the_files_of_its_task(
    page: Page, tmp_path: Path, task: str, kind: str
) -> None:
    page.task(task)
    page.drop("#img-slot .target", png())
    (tmp_path / "img.png").write_bytes(png())
    page.until(lambda: page.shown("#painter canvas" if task == "inpaint" else "#img-slot img"))
    if task != "upscale":
        page.ask("a red heart; with a semicolon")
    if task == "inpaint":
        page.until(lambda: page.find("#painter canvas").get_property("width") == 128)
        stroke(page)
        mask = page.driver.execute_script(MASK, page.find("#painter canvas"))
        (tmp_path / "mask.png").write_bytes(base64.b64decode(mask))
    shown = page.generate()
    assert page.newest()["task"] == task
    assert np.abs(page.run(kind, tmp_path) - shown).max() <= 2
    note = page.find("#stage .note").text
    assert "img.png" in note and ("mask.png" in note) == (task == "inpaint")


def test_it_is_dark_from_the_first_paint(page: Page) -> None:
    assert page.driver.title == "Stable Diffusion"
    assert httpx.get(f"{page.url}/ui/icon.svg").headers["content-type"] == "image/svg+xml"
    head = httpx.get(f"{page.url}/ui/").text.partition("</head>")[0]
    assert head.index('src="theme.js"') < head.index('rel="stylesheet"')
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    try:
        page.load()
        assert brightness(page) < 60
        page.click("#theme")
        assert brightness(page) > 200
        page.load()
        assert brightness(page) > 200
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def brightness(page: Page) -> float:
    """Return the brightness of the page's background, from 0 to 255."""
    read = "return getComputedStyle(document.body).backgroundColor"
    return float(np.mean([float(n) for n in re.findall(r"\d+", page.driver.execute_script(read))]))


@needs_axe
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing(page: Page, width: int, theme: str) -> None:
    page.ask("a sunset", 2)
    page.generate()
    resize(page.driver, width, 900)
    page.driver.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
    page.driver.execute_script(
        "for (const one of document.querySelectorAll('details:not(.menu)')) one.open = true"
    )
    for task in ("txt2img", "img2img", "inpaint", "upscale"):
        page.task(task)
        if task == "inpaint":
            page.drop("#img-slot .target", png())
            page.until(lambda: page.shown("#painter canvas"))
        assert page.violations() == []
    page.task("txt2img")
    page.fill("#prompt", "")
    page.click("#generate")
    page.until(lambda: page.shown("[data-field=prompt] > .error"))
    assert page.violations() == []
    page.click("[data-action=compare]")
    assert page.violations() == []
    page.press(Keys.ESCAPE)
    page.click(".frame .open")
    page.until(lambda: page.shown("#lightbox"))
    assert page.violations() == []


def test_it_fits_a_phone(page: Page) -> None:
    resize(page.driver, 390, 844)
    page.load()
    page.until_ready()
    page.fill("#prompt", "a city at night")
    page.generate()
    page.click("#settings > summary")
    for task in ("txt2img", "img2img", "inpaint", "upscale"):
        page.task(task)
        assert page.width() <= 390
    button = page.find("#generate")
    assert button.size["height"] >= 44 and button.size["width"] >= 300
    assert page.find(".frame .open").size["width"] >= 300


def test_a_service_that_goes_away_is_reported(page: Page) -> None:
    page.ask("a sunset", 2)
    page.driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        page.click("#generate")
        page.until(lambda: "cannot be reached" in page.find("#message").text)
    finally:
        online = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", online)
    time.sleep(0.1)
    page.generate()
