"""Hostile input delays nobody: a watcher looks at the service while it is attacked.

`pytest -s` prints how long the watcher's slowest answer took.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image, PngImagePlugin

from tests.service.server import Server
from tests.service.test_bad_input import ACCEPTED, CASES, form, png, raw

Attack = Callable[[Server], httpx.Response]
EVERY_S = 0.02


def webui(path: str = "txt2img", **body: object) -> Attack:
    whole = {"steps": 1, "width": 64, "height": 64, **body}
    return raw(json.dumps(whole), path=f"/sdapi/v1/{path}")


def image_with(text: str, name: str = "parameters") -> str:
    """A PNG with a text, in base64."""
    chunks, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    chunks.add_text(name, text)
    Image.new("L", (8, 8)).save(buffer, "PNG", pnginfo=chunks)
    return base64.b64encode(buffer.getvalue()).decode()


def scans() -> bytes:
    """A progressive JPEG of many scans."""
    buffer = io.BytesIO()
    Image.new("RGB", (1000, 1000)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    start = data.index(b"\xff\xda")
    return data[:-2] + data[start : data.index(b"\xff\xda", start + 2)] * 5000 + data[-2:]


PROMPTS = {
    "tags that never end": "<lora:a" * 1200,
    "brackets that never close": "(a" * 1900,
    "brackets inside each other": "(" * 1900 + ")" * 1900,
    "a weight of many digits": "(a:" + "1" * 3900 + ")",
    "colons and blanks": ": " * 1900,
    "56 KB of brackets": "(a" * 28_000,
    "64 KB of tags": "<lora:a" * 8000,
}
INFOTEXTS = {
    "escapes in a string that never ends": 'a\nSteps: 4, A: "' + r"\a" * 10_000,
    "words without a colon": "a\nSteps: 4, " + "a " * 10_000,
    "quotation marks": "a\nSteps: 4, " + 'b: "' * 5000,
    "1 MB": "a\nSteps: 4, " + "b: c, " * 150_000,
}
ATTACKS: dict[str, Attack] = {
    **{name: case[0] for name, case in CASES.items()},
    **ACCEPTED,
    **{f"prompt: {name}": webui(prompt=text) for name, text in PROMPTS.items()},
    **{f"negative prompt: {n}": webui(prompt="x", negative_prompt=t) for n, t in PROMPTS.items()},
    **{
        f"native prompt: {name}": raw(json.dumps({"prompt": text, "prompt_syntax": "webui"}))
        for name, text in PROMPTS.items()
    },
    **{
        f"infotext: {name}": webui("png-info", image=image_with(text))
        for name, text in INFOTEXTS.items()
    },
    "parameters that are no object": webui(
        "png-info", image=image_with("[" * 90_000, "sd-parameters")
    ),
    "base64 of line breaks": webui("png-info", image="\n" * 1_000_000),
    "a progressive JPEG of 5,000 scans": form(img=scans()),
    "an image of one pixel's height": form(img=png(16_000, 1)),
    "a mask of one pixel's height": form(path="/inpaint", mask=png(16_000, 1)),
    "many lists": raw('{"a": [' + "[]," * 3_000_000 + "1]}"),
    "a long number": raw('{"prompt": "x", "guidance_scale": 1.' + "1" * 5_000_000 + "}"),
    "many scripts": webui(prompt="x", alwayson_scripts={f"s{i}": [False] for i in range(9000)}),
    "halves of surrogates": raw('{"prompt": "x", "a": "\\ud83d"}', path="/sdapi/v1/txt2img"),
    "an infinite number": raw('{"prompt": "x", "a": 1e400}', path="/sdapi/v1/txt2img"),
}


class Watcher(threading.Thread):
    """Asks /livez 50 times a second."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.statuses: set[int] = set()
        self.slowest = 0.0
        self._server, self._ended = server, threading.Event()

    def run(self) -> None:
        with httpx.Client(timeout=300) as client:
            while not self._ended.wait(EVERY_S):
                started = time.perf_counter()
                self.statuses.add(client.get(f"{self._server.url}/livez").status_code)
                self.slowest = max(self.slowest, time.perf_counter() - started)

    def stop(self) -> None:
        self._ended.set()
        self.join()


@pytest.fixture
def watcher(server: Server) -> Iterator[Watcher]:
    watching = Watcher(server)
    watching.start()
    yield watching
    watching.stop()


def memory(server: Server) -> int:
    process = psutil.Process(server.process.pid)
    every = [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in every) // 1_000_000


def test_it_survives_more_than_a_hundred_attacks(server: Server, watcher: Watcher) -> None:
    assert len(ATTACKS) > 100
    before = memory(server)
    wrong: dict[str, Any] = {}
    for name, attack in ATTACKS.items():
        answer = attack(server)
        if answer.status_code >= 500:
            wrong[name] = (answer.status_code, answer.text[:200])
    watcher.stop()
    print(
        f"\n{len(ATTACKS)} attacks; /livez took {watcher.slowest:.2f} s at most; "
        f"memory {before} MB before, {memory(server)} MB after"
    )
    assert not wrong
    assert watcher.statuses == {200}
    assert "Traceback" not in server.log.read_text()
