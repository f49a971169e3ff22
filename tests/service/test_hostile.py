"""Hostile input delays nobody: a watcher looks at the service while it is attacked.

`pytest -s` prints how long the watcher's slowest answer took, and the dearest attacks. The limits
count CPU time, or the time that the service had a core: they are the same on a busy machine.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from PIL import Image, PngImagePlugin

from tests.service.server import ROOT, Server
from tests.service.test_bad_input import ACCEPTED, CASES, form, png, raw

Attack = Callable[[Server], httpx.Response]
OPTIONS = "/sdapi/v1/options"
#: bytes of an answer that refuses
MAX_REFUSAL = 20_000
#: seconds of CPU time, on any thread, after which an attack is refused
MOST_S = 2


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


def tool(name: str, **arguments: object) -> Attack:
    """A call of the agents' API."""
    call = {"name": name, "arguments": arguments}
    return rpc(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}))


def rpc(body: str) -> Attack:
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    return lambda server: httpx.post(f"{server.url}/mcp", content=body, headers=headers)


def get(path: str, **query: str) -> Attack:
    return lambda server: httpx.get(f"{server.url}{path}", params=query)


def job(**body: object) -> Attack:
    whole = {"task": "txt2img", "parameters": {"prompt": "x"}, **body}
    return raw(json.dumps(whole), path="/jobs")


def openai(**body: object) -> Attack:
    return raw(json.dumps({"size": "64x64", **body}), path="/v1/images/generations")


def edit(data: bytes) -> Attack:
    path, fields = "/v1/images/edits", {"prompt": "x", "size": "64x64"}
    return lambda server: httpx.post(f"{server.url}{path}", data=fields, files={"image": data})


def verified(data: bytes) -> Attack:
    return lambda server: httpx.post(f"{server.url}/verify", files={"img": data})


def compel(prompt: str) -> Attack:
    body = {"prompt": prompt, "negative_prompt": prompt, "prompt_syntax": "compel"}
    return raw(json.dumps({**body, "num_inference_steps": 1, "width": 64, "height": 64}))


def with_texts(count: int, text: bytes) -> bytes:
    """A PNG with so many compressed texts."""
    chunks, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    for i in range(count):
        chunks.add(b"zTXt", f"text{i}".encode() + b"\0\0" + zlib.compress(text))
    Image.new("L", (8, 8)).save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


BLANKS = "x" + " " * 2_000_000 + "x"
COMPEL = {
    "brackets": "(a" * 500,
    "nested": "(" * 500 + "a" + ")" * 500,
    "weights": "(a)1.1" * 160,
    "plus signs": "a" + "+" * 990,
    "a blend of many": "(" + '"a", ' * 190 + '"b").blend(' + "1," * 20 + "1)",
    "conjunctions": '("a", "b").and() ' * 58,
    "quotes": '"' * 999,
    "32,000 characters": "(a)+ " * 6400,
}
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
    "almost 1 MB of line breaks": "a" + "\n" * 990_000 + "Steps: 4, b: c",
}


def attacks() -> dict[str, Attack]:
    """Every attack by its name; made when they are needed, as there is much in them."""
    return {
        **{name: case[0] for name, case in CASES.items()},
        **ACCEPTED,
        **{f"prompt: {name}": webui(prompt=text) for name, text in PROMPTS.items()},
        **{
            f"negative prompt: {n}": webui(prompt="x", negative_prompt=t)
            for n, t in PROMPTS.items()
        },
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
        "options: blanks": raw(json.dumps({"sd_model_checkpoint": BLANKS}), path=OPTIONS),
        "options: a long name": raw(
            json.dumps({"sd_model_checkpoint": "x" * 20_000_000}), path=OPTIONS
        ),
        "options: many": raw(json.dumps(dict.fromkeys(map(str, range(90_000)), 1)), path=OPTIONS),
        "override_settings: blanks": webui(
            prompt="x", override_settings={"sd_model_checkpoint": BLANKS}
        ),
        "a unit's model: blanks": webui(
            prompt="x", alwayson_scripts={"controlnet": {"args": [{"model": BLANKS}]}}
        ),
        "a long sampler": webui(prompt="x", sampler_name="x" * 10_000_000),
        "a long name of a field": raw(json.dumps({"prompt": "x", "prompt" * 3_000_000: 1})),
        "a prompt of line breaks": webui(prompt="\n" * 30_000 + "x", negative_prompt="\n" * 30_000),
        **{f"compel: {name}": compel(text) for name, text in COMPEL.items()},
        "mcp: no JSON": rpc("{"),
        "mcp: deep nesting": rpc("[" * 1_000_000),
        "mcp: many lists": rpc('{"a": [' + "[]," * 3_000_000 + "1]}"),
        "mcp: many calls": rpc("[" + ",".join(['{"jsonrpc": "2.0", "id": 1}'] * 90_000) + "]"),
        "mcp: a long method": rpc(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "x" * 20_000_000})
        ),
        "mcp: a long tool": tool("x" * 20_000_000),
        "mcp: a long name of a field": tool("generate", **{"prompt": "x", "prompt" * 3_000_000: 1}),
        "mcp: many fields": tool("generate", **dict.fromkeys(map(str, range(9000)), 1)),
        "mcp: no picture": tool("edit", prompt="x", img="\n" * 20_000_000),
        "mcp: a long id": tool("follow_job", id="x" * 20_000_000),
        "jobs: no task": raw("{}", path="/jobs"),
        "jobs: a long task": raw(json.dumps({"task": "x" * 20_000_000}), path="/jobs"),
        "jobs: a long id": job(id="a" * 20_000_000),
        "jobs: a long webhook": job(webhook="https://" + "x" * 20_000_000),
        "jobs: many parameters": job(parameters=dict.fromkeys(map(str, range(90_000)), 1)),
        "jobs: a deep parameter": job(parameters={"prompt": [[[[["x"] * 9000]]]]}),
        "jobs: an id in the address": get("/jobs/" + "x" * 20_000),
        "jobs: a prefix": get("/jobs", prefix="x" * 20_000),
        "jobs: a cursor": get("/jobs", cursor="9" * 20_000),
        "openai: a long prompt": openai(prompt="x" * 20_000_000),
        "openai: a long model": openai(prompt="x", model="x" * 20_000_000),
        "openai: a long size": openai(prompt="x", size="1" * 20_000_000 + "x1"),
        "openai: many fields": openai(**dict.fromkeys(map(str, range(9000)), 1)),
        "openai: an edit of 5,000 scans": edit(scans()),
        "openai: an edit of no picture": edit(b"x" * 20_000_000),
        "openai: a file": get("/v1/images/files/" + "x" * 20_000),
        "openai: a model": get("/v1/models/" + "x" * 20_000),
        "imagine: a long prompt": get("/imagine", prompt="x" * 40_000),
        "imagine: many fields": get("/imagine", **dict.fromkeys(map(str, range(9000)), "1")),
        "imagine: a long name": get("/imagine", **{"prompt" * 6000: "1"}),
        "imagine: a long size": get("/imagine", prompt="x", img_size="9" * 20_000),
        "verify: 5,000 scans": verified(scans()),
        "verify: texts": verified(with_texts(50, b"a" * 1_000_000)),
        "verify: no picture": verified(b"x" * 20_000_000),
        "png-info: texts": webui(
            "png-info", image=base64.b64encode(with_texts(50, b" " * 10**6)).decode()
        ),
        "an infinite number": raw('{"prompt": "x", "a": 1e400}', path="/sdapi/v1/txt2img"),
    }


@pytest.fixture
def watcher(server: Server) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.service.watcher", server.url, str(server.process.pid)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


def processes(server: Server) -> list[psutil.Process]:
    process = psutil.Process(server.process.pid)
    return [process, *process.children(recursive=True)]


def memory(server: Server) -> float:
    """The megabytes in use."""
    return sum(one.memory_info().rss for one in processes(server)) / 1e6


def cpu(server: Server) -> float:
    """The seconds of CPU time so far, which are the same on a busy machine."""
    return sum(sum(one.cpu_times()[:2]) for one in processes(server))


def rest(server: Server) -> None:
    """Return once the server does nothing: nothing of an attack is left over."""
    while True:
        before = cpu(server)
        time.sleep(0.5)
        if cpu(server) - before < 0.1:
            return


def attack_all(
    server: Server, attacks: Mapping[str, Attack]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the answers that are errors of the server, and the CPU seconds of each refusal."""
    wrong: dict[str, Any] = {}
    refused: dict[str, float] = {}
    for name, attack in attacks.items():
        before = cpu(server)
        answer = attack(server)
        if answer.status_code >= 500:
            wrong[name] = (answer.status_code, answer.text[:200])
        elif answer.status_code >= 400:
            refused[name] = cpu(server) - before
            if len(answer.content) > MAX_REFUSAL:
                wrong[name] = f"an answer of {len(answer.content)} bytes"
    return wrong, refused


def test_it_survives_more_than_a_hundred_attacks(
    server: Server, watcher: subprocess.Popen[str]
) -> None:
    """Twice, as the first round fills caches and pools: the second leaves no more behind."""
    tried = attacks()
    assert len(tried) > 150
    address = urlsplit(server.url)
    silent = socket.create_connection((address.hostname, address.port))
    silent.sendall(b"GET / HTTP/1.1\r\n")  # and nothing more
    attack_all(server, tried)
    rest(server)
    before = memory(server)
    wrong, refused = attack_all(server, tried)
    rest(server)
    after = memory(server)
    seen = json.loads(watcher.communicate()[0])
    dearest = sorted(refused, key=lambda name: -refused[name])[:5]
    print(f"\n{len(tried)} attacks; /livez: {seen}; {before:.0f} MB before, {after:.0f} MB after")
    print("\n".join(f"{refused[name]:.2f} s of CPU time: {name}" for name in dearest))
    assert not wrong
    silent.settimeout(300)
    assert silent.recv(1) == b""  # it was closed
    assert seen["statuses"] == [200]
    assert seen["held_s"] < 1
    assert refused[dearest[0]] < MOST_S
    assert after < 1.1 * before
    assert "Traceback" not in server.log.read_text()
