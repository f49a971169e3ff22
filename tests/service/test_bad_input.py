"""Bad input gets the contract's status with the field named, and the next good request works."""

from __future__ import annotations

import io
import json
import socket
import struct
import zlib
from collections.abc import Callable

import httpx
import pytest
from PIL import Image

from tests.service.server import Server

GOOD = {"prompt": "a red circle on a blue background", "num_inference_steps": 2}
Send = Callable[[Server], httpx.Response]


def png(width: int = 32, height: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG whose header claims 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def text(**changes: object) -> Send:
    return raw(json.dumps({**GOOD, **changes}))


def raw(body: str | bytes, kind: str = "application/json", path: str = "/txt2img") -> Send:
    def send(server: Server) -> httpx.Response:
        headers = {"content-type": kind}
        return httpx.post(f"{server.url}{path}", content=body, headers=headers, timeout=300)

    return send


def form(
    img: object = None,
    data: object = None,
    path: str = "/img2img",
    name: str = "a.png",
    kind: str = "image/png",
    **more: object,
) -> Send:
    """A multipart request; bytes go as files, strings as text fields."""

    def send(server: Server) -> httpx.Response:
        parts = {"img": png() if img is None else img, **more}
        files: list[tuple[str, tuple[object, ...]]] = [
            (field, (name, value, kind) if isinstance(value, bytes) else (None, str(value)))
            for field, value in parts.items()
            if isinstance(value, bytes | str)
        ]
        files.append(("data", (None, json.dumps(GOOD) if data is None else str(data))))
        return httpx.post(f"{server.url}{path}", files=files, timeout=300)

    return send


def form_twice() -> Send:
    """Two files under one name."""

    def send(server: Server) -> httpx.Response:
        files = [("img", ("a.png", png(), "image/png"))] * 2
        return httpx.post(f"{server.url}/img2img", files=files, data={"data": json.dumps(GOOD)})

    return send


def accepting(kind: str) -> Send:
    return lambda server: httpx.post(f"{server.url}/txt2img", json=GOOD, headers={"accept": kind})


CASES: dict[str, tuple[Send, int, list[object]]] = {
    "missing prompt": (raw("{}"), 400, ["prompt"]),
    "empty prompt": (text(prompt=""), 400, ["prompt"]),
    "long prompt": (text(prompt="x" * 32_001), 400, ["prompt"]),
    "prompt of a wrong type": (text(prompt=5), 400, ["prompt"]),
    "unknown field": (text(promt="x"), 400, ["promt"]),
    "steps of a wrong type": (text(num_inference_steps="many"), 400, ["num_inference_steps"]),
    "no steps": (text(num_inference_steps=0), 400, ["num_inference_steps"]),
    "too many steps": (text(num_inference_steps=151), 400, ["num_inference_steps"]),
    "guidance out of range": (text(guidance_scale=51), 400, ["guidance_scale"]),
    "NaN": (raw('{"prompt": "x", "guidance_scale": NaN}'), 400, ["body"]),
    "a float that is infinite": (
        raw('{"prompt": "x", "guidance_scale": 1e999}'),
        400,
        ["guidance_scale"],
    ),
    "odd size": (text(height=100), 400, ["height"]),
    "size 0": (text(width=0), 400, ["width"]),
    "huge size": (text(height=4096, width=4096), 413, ["height"]),
    "absurd size": (text(height=10**9), 400, ["height"]),
    "negative seed": (text(seed=-2), 400, ["seed"]),
    "seed over 2^53": (text(seed=2**53), 400, ["seed"]),
    "eleven images": (text(num_images_per_prompt=11), 400, ["num_images_per_prompt"]),
    "unknown sampler": (text(scheduler="eulr"), 404, ["scheduler"]),
    "unknown format": (text(output_format="gif"), 400, ["output_format"]),
    "several images as one file": (
        text(num_images_per_prompt=2, output_format="png"),
        400,
        ["num_images_per_prompt"],
    ),
    "strength where there is none": (text(strength=0.5), 400, ["strength"]),
    "deadline 0": (text(deadline_s=0), 400, ["deadline_s"]),
    "broken JSON": (raw('{"prompt": '), 400, ["body"]),
    "a list": (raw("[1]"), 400, ["body"]),
    "no body": (raw(""), 400, ["body"]),
    "not UTF-8": (raw(b'{"prompt": "\xff"}'), 400, ["body"]),
    "deep nesting": (raw("[" * 100_000), 400, ["body"]),
    "wrong content type": (raw(json.dumps(GOOD), "text/plain"), 400, ["content-type"]),
    "body over the limit": (raw(b" " * 50_000_000), 413, ["body"]),
    "JSON for img2img": (raw(json.dumps(GOOD), path="/img2img"), 400, ["content-type"]),
    "no image": (form(img=1), 400, ["img"]),
    "image as text, an address": (form(img="http://127.0.0.1:1/a.png"), 400, ["img"]),
    "not an image": (form(img=b"hello"), 415, ["img"]),
    "empty file": (form(img=b""), 415, ["img"]),
    "truncated image": (form(img=png(500, 500)[:-300]), 415, ["img"]),
    "decompression bomb": (form(img=bomb()), 413, ["img"]),
    "too many pixels": (form(img=png(3000, 3000)), 413, ["img"]),
    "long and thin image": (form(img=png(8000, 4)), 400, ["width"]),
    "an image of another kind": (form(img=b"%!PS-Adobe-3.0 EPSF-3.0\n"), 415, ["img"]),
    "broken JSON in data": (form(data='{"prompt"'), 400, ["data"]),
    "unknown field in data": (form(data='{"prompt":"x","a":1}'), 400, ["data", "a"]),
    "strength 0": (form(data='{"prompt":"x","strength":0}'), 400, ["data", "strength"]),
    "strength that leaves no step": (
        form(data='{"prompt":"x","strength":0.01,"num_inference_steps":5}'),
        400,
        ["strength"],
    ),
    "data over its limit": (form(data='{"prompt":"' + "x" * 1_100_000 + '"}'), 413, ["data"]),
    "two images in one part": (
        form_twice(),
        400,
        ["img"],
    ),
    "a lone surrogate": (raw('{"prompt": "\\ud800"}'), 400, ["prompt"]),
    "a number of 5,000 digits": (raw('{"prompt": "x", "seed": ' + "9" * 5000 + "}"), 400, ["body"]),
    "nothing acceptable": (accepting("text/html"), 400, ["accept"]),
    "no data": (raw(b"--b\r\n", "multipart/form-data; boundary=b", "/img2img"), 400, ["data"]),
    "interval of three": (text(guidance_interval=[0, 0.5, 1]), 400, ["guidance_interval"]),
    "unknown part": (form(extra=b"x"), 400, ["extra"]),
    "inpaint without mask": (form(path="/inpaint"), 400, ["mask"]),
    "mask that is no image": (form(path="/inpaint", mask=b"x"), 415, ["mask"]),
    "not multipart inside": (raw(b"x", "multipart/form-data", "/img2img"), 400, ["body"]),
    "wrong path": (raw("{}", path="/txt3img"), 404, ["path"]),
    **{
        f"multipart in {charset}": (
            raw(b"--b\r\n", f"multipart/form-data; boundary=b; charset={charset}", "/img2img"),
            400,
            ["content-type"],
        )
        for charset in ("utf-16", "nonsense", "base64", "idna", "punycode")
    },
    "a surrogate in a name": (raw('{"prompt": "x", "\\ud800": 1}'), 400, ["body"]),
    "200,000 unknown fields": (
        raw("{" + ",".join(f'"a{i}":1' for i in range(200_000)) + "}"),
        400,
        ["body"],
    ),
    "5,000 unknown fields": (
        raw("{" + ",".join(f'"a{i}":1' for i in range(5000)) + "}"),
        400,
        ["prompt"],
    ),
}
ACCEPTED: dict[str, Send] = {
    "a file name of 300 characters": form(name="x" * 300 + ".png"),
    "a PNG called image/jpg": form(kind="image/jpg"),
    "a file that says it is text": form(kind="text/plain"),
    "a file with a path for a name": form(name="../../etc/passwd"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_with_the_field_named(server: Server, name: str) -> None:
    send, status, loc = CASES[name]
    response = send(server)
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "detail"}
    assert body["error"]
    assert body["detail"][0]["loc"] == loc
    assert body["detail"][0]["msg"]
    assert "Traceback" not in response.text
    assert text(num_inference_steps=1)(server).status_code == 200, "the next good request works"


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_but_good(server: Server, name: str) -> None:
    assert ACCEPTED[name](server).status_code == 200


@pytest.mark.parametrize("path", ["/img2img", "/inpaint"])
def test_an_address_instead_of_a_file_is_not_fetched(server: Server, path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.5)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/a.png"
        response = form(img=address, mask=address, path=path)(server)
        with pytest.raises(TimeoutError):
            listening.accept()
    assert response.status_code == 400


def test_the_server_has_survived(server: Server) -> None:
    """Last in the file: after all of the above, a good request is drawn, and no 500 was logged."""
    assert text()(server).status_code == 200
    log = server.log.read_text()
    assert "Traceback" not in log
    assert " 500 " not in log


def test_method_not_allowed(server: Server) -> None:
    response = httpx.get(f"{server.url}/txt2img")
    assert response.status_code == 405
    assert response.json()["detail"][0]["loc"] == ["path"]


def test_every_wrong_field_is_listed(server: Server) -> None:
    problems = text(seed=-2, width=0, nonsense=1)(server).json()["detail"]
    assert {problem["loc"][0] for problem in problems} == {"seed", "width", "nonsense"}
