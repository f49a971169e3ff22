"""The page on services that are set up otherwise: keys, a proxy before them, more to choose."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests import tiny
from tests.runnables.extensions import test_lora, test_textual_inversion
from tests.service.browser import needs_chromium, resize
from tests.service.server import Server, serve
from tests.ui.browsing import Page, png

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def equipped(
    tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service that wants a key, with a second model and one of everything to choose."""
    model, folder = tiny_model("sd1"), tmp_path_factory.mktemp("equipped")
    for name in ("loras", "embeddings", "nets"):
        (folder / name).mkdir()
    test_lora.write(folder / "loras", "one", model)
    test_textual_inversion.write(folder / "embeddings", "sd1")
    tiny.build_controlnet(folder / "nets" / "canny", model)
    settings = {
        "SD_API_KEYS": "secret",
        "SD_MODEL": str(model),
        "SD_MODELS": f"second={model}",
        "SD_LORA_DIR": str(folder / "loras"),
        "SD_EMBEDDINGS_DIR": str(folder / "embeddings"),
        "SD_CONTROLNET_DIR": str(folder / "nets"),
    }
    with serve(folder / "log", **settings) as server:
        yield server


@pytest.fixture
def locked(browser: Chrome, equipped: Server) -> Page:
    """The page of that service, as it asks for the key."""
    resize(browser, 1200, 1000)
    page = Page(browser, equipped.url, {"x-api-key": "secret"})
    page.forget()
    page.load()
    page.until(lambda: page.shown("#key-dialog"))
    return page


def enter(page: Page, key: str) -> None:
    page.fill("#key", key)
    page.find("#key").send_keys(Keys.ENTER)


def test_a_key_is_asked_for_before_anything_is_sent(locked: Page) -> None:
    page = locked
    assert not page.find("#generate").is_enabled()
    enter(page, "wrong")
    page.until(lambda: "not known" in page.find("#key-dialog .error").text)
    enter(page, "secret")
    page.until_ready()
    page.ask("two hills")
    first = page.generate()
    page.load()  # the tab knows the key
    page.until(lambda: page.all("#history img[src^=blob]"))
    page.until(page.current)
    assert (page.picture() == first).all()
    assert str(page.find("[data-action=download]").get_attribute("href")).startswith("blob:")
    page.driver.execute_script("sessionStorage.clear()")
    page.load()
    page.until(lambda: page.shown("#key-dialog"))


#: the service answers with one byte, and with "slow" only when told to
ANSWERS = """
let answerSlow;
window.fetch = (address) => {
  const answer = () => new Response(new Blob(["x"]));
  if (!String(address).includes("slow")) return Promise.resolve(answer());
  return new Promise((resolve) => (answerSlow = () => resolve(answer())));
};
"""


def run(page: Page, script: str) -> Any:
    """Return what the script gives to `done`, with the page's own modules."""
    return page.driver.execute_async_script(f"(async (done) => {{{script}}})(arguments[0])")


def test_files_loaded_with_a_key_are_freed(locked: Page) -> None:
    enter(locked, "secret")
    locked.until_ready()
    made, freed, again = run(
        locked,
        f"""{ANSWERS}
        const freed = [];
        URL.revokeObjectURL = (address) => freed.push(address);
        const {{source, forget}} = await import("./pictures.js");
        forget();
        const made = [];
        for (let i = 0; i < 70; i += 1) made.push(await source({{path: `jobs/${{i}}`}}));
        await new Promise((resolve) => setTimeout(resolve));
        done([made, freed, await source({{path: "jobs/69"}})]);""",
    )
    assert [address for address in freed if address in made] == made[:10]
    assert again == made[69]


def test_the_download_is_the_picture_that_is_shown(locked: Page) -> None:
    """A picture that was chosen before may come later."""
    enter(locked, "secret")
    locked.until_ready()
    right, offered, name = run(
        locked,
        f"""{ANSWERS}
        const {{Stage}} = await import("./stage.js");
        const picture = (path) => ({{
          id: path, path, task: "txt2img", parameters: {{prompt: path}}, seed: 1,
          width: 64, height: 64, type: "image/png", filtered: false, hint: "",
        }});
        const stage = new Stage();
        const first = stage.show(picture("slow"));
        await stage.show(picture("fast"));
        const link = document.querySelector("[data-action=download]");
        const right = link.href;
        answerSlow();
        await first;
        done([right, link.href, link.download]);""",
    )
    assert offered == right
    assert "fast" in name


def test_pictures_that_are_asked_for_twice_are_shown_once(locked: Page) -> None:
    enter(locked, "secret")
    locked.until_ready()
    locked.ask("two hills", 1)
    locked.generate()
    twice = "for (const _ of [1, 2]) document.querySelector('#others').click()"
    locked.driver.execute_script(twice)
    locked.until(lambda: locked.all("#history img[src^=blob]"))
    shown = [one.get_attribute("data-id") for one in locked.all("#history button[data-id]")]
    assert len(shown) == len(set(shown)) > 0


@contextmanager
def proxied(service: str, prefix: str) -> Iterator[str]:
    """A proxy that has a service below a path; yields the address with it."""

    async def forward(request: Request) -> Response:
        client = httpx.AsyncClient(base_url=service, timeout=300)
        path = f"/{request.path_params['path']}?{request.url.query}"
        kept = {"content-type", "x-api-key", "accept"}
        headers = {name: value for name, value in request.headers.items() if name in kept}
        body = await request.body()
        sent = client.build_request(request.method, path, headers=headers, content=body)
        answer = await client.send(sent, stream=True)

        async def content() -> AsyncIterator[bytes]:
            async for chunk in answer.aiter_raw():
                yield chunk
            await client.aclose()

        dropped = {"content-length", "transfer-encoding", "connection", "date"}
        back = {name: value for name, value in answer.headers.items() if name not in dropped}
        return StreamingResponse(content(), answer.status_code, back)

    methods = ["GET", "POST", "DELETE"]
    app = Starlette(routes=[Route(f"{prefix}/{{path:path}}", forward, methods=methods)])
    listening = socket.create_server(("127.0.0.1", 0))
    proxy = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve([listening])), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}{prefix}"
    proxy.should_exit = True
    thread.join(300)


def test_it_works_below_a_path(browser: Chrome, server: Server) -> None:
    with proxied(server.url, "/some/where") as address:
        answer = httpx.get(f"{address}/ui", follow_redirects=True)
        assert str(answer.url) == f"{address}/ui/"
        resize(browser, 1200, 1000)
        page = Page(browser, address)
        page.forget()
        page.open()
        page.complaints()
        page.ask("two hills", 30)
        page.generate()
        assert page.find("[data-action=download]").get_attribute("href") == (
            f"{address}/jobs/{page.newest()['id']}/images/0"
        )
        assert page.find("#docs").get_attribute("href") == f"{address}/"
        assert page.complaints() == []


def test_loras_embeddings_and_controlnets_are_picked_with_what_they_need(locked: Page) -> None:
    page = locked
    enter(page, "secret")
    page.until_ready()
    page.ask("a hill", 2)
    page.click("[value=own] + span")
    page.fill("#width", "64")
    page.fill("#height", "64")
    for kind, name in (
        ("loras", "one"),
        ("embeddings", "bad-hands-5"),
        ("controlnets", "canny"),
    ):
        inside = f"details[data-field={kind}]"
        page.click(f"{inside} > summary")
        page.find(f"{inside} .adding select").send_keys(name)
        page.click(f"{inside} .adding button")
        page.until(lambda inside=inside: page.shown(f"{inside} .use"))
    assert page.value("#prompt") == "a hill bad-hands-5"
    page.fill("details[data-field=loras] .weight input", "0.5")
    page.click("#generate")
    page.until(lambda: "needs a picture" in page.find("[data-field=controlnets] .error").text)
    page.drop("details[data-field=controlnets] .target", png(size=(64, 64)))
    page.find("#model").send_keys("second")
    page.generate()
    parameters = page.newest()["parameters"]
    assert parameters["model"] == "second"
    assert parameters["loras"] == [{"name": "one", "weight": 0.5}]
    assert parameters["embeddings"] == ["bad-hands-5"]
    assert parameters["controlnets"] == [{"name": "canny", "weight": 1.0, "start": 0.0, "end": 1.0}]
    page.click("#start-over")
    assert not page.all(".use")
    page.click("[data-action=recall]")
    assert len(page.all(".use")) == 3
    assert page.value("details[data-field=loras] .weight input") == "0.5"
    assert page.value("#model") == "second"


@pytest.mark.parametrize("kind", ["curl", "python", "job"])
def test_a_copied_command_takes_the_key_from_the_environment(
    locked: Page, tmp_path: Path, kind: str
) -> None:
    page = locked
    enter(page, "secret")
    page.until_ready()
    page.ask("two hills")
    shown = page.generate()
    assert "secret" not in page.copied(kind)
    assert np.abs(page.run(kind, tmp_path, SD_API_KEY="secret") - shown).max() <= 2


#: follows a job and shows its picture, as a page that knows only the address of the events
FOLLOW = """
const [events, done] = arguments;
const source = new EventSource(events);
source.onerror = () => done("refused");
source.addEventListener("succeeded", (event) => {
  source.close();
  const image = new Image();
  image.onload = () => done(`${image.naturalWidth} x ${image.naturalHeight}`);
  image.onerror = () => done("no image");
  image.src = JSON.parse(event.data).images[0].url;
});
"""


def test_a_signed_address_is_followed_and_shown_without_a_key(locked: Page) -> None:
    page, headers = locked, {"x-api-key": "secret"}
    body = {"task": "txt2img", "parameters": {"prompt": "x", "num_inference_steps": 2}}
    id = httpx.post(f"{page.url}/jobs", json=body, headers=headers).json()["id"]
    links = httpx.get(f"{page.url}/jobs/{id}/links", headers=headers).json()
    follow = page.driver.execute_async_script
    assert follow(FOLLOW, f"{page.url}/jobs/{id}/events") == "refused"
    assert follow(FOLLOW, links["events"]) == "64 x 64"
