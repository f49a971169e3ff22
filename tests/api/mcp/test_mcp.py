"""The MCP endpoint of a real server, used by the official SDK's client."""

from __future__ import annotations

import asyncio
import base64
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ImageContent, ResourceLink, TextContent
from PIL import Image

from tests.service.server import ROOT, Server, serve


def data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


KEY = {"Authorization": "Bearer secret"}
SMALL = {"prompt": "two hills", "num_inference_steps": 3, "seed": 1}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
PICTURE = data_url(Image.new("L", (128, 128), 255))
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("mcp") / "log"
    with serve(log, SD_API_KEYS="secret,other") as server:
        yield server


@asynccontextmanager
async def connected(server: Server, key: str = "secret") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=300) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http)) as client,
    ):
        yield client


def call(server: Server, name: str, key: str = "secret", **arguments: Any) -> CallToolResult:
    async def called() -> CallToolResult:
        async with connected(server, key) as client:
            return await client.call_tool(name, arguments)

    return asyncio.run(called())


def pictures(result: CallToolResult) -> list[Image.Image]:
    blocks = [block for block in result.content if isinstance(block, ImageContent)]
    return [Image.open(io.BytesIO(base64.b64decode(block.data))) for block in blocks]


def links(result: CallToolResult) -> list[str]:
    return [str(block.uri) for block in result.content if isinstance(block, ResourceLink)]


def reason(result: CallToolResult) -> str:
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def test_the_tools_take_the_endpoints_own_parameters(keyed: Server) -> None:
    async def listed() -> dict[str, Any]:
        async with connected(keyed) as client:
            return {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}

    tools = asyncio.run(listed())
    assert {"generate", "edit", "inpaint", "upscale", "list_models", "follow_job"} <= set(tools)
    schemas = httpx.get(f"{keyed.url}/docs.json").json()["components"]["schemas"]
    wanted = schemas["TextToImage"]["properties"]["num_inference_steps"]
    assert tools["generate"]["properties"]["num_inference_steps"] == wanted
    assert tools["inpaint"]["required"] == ["img", "mask", "prompt"]


def test_progress_comes_and_images_as_content_and_as_links(keyed: Server) -> None:
    steps: list[tuple[float, float | None]] = []

    async def report(step: float, of: float | None, message: str | None) -> None:
        steps.append((step, of))

    async def called() -> CallToolResult:
        async with connected(keyed) as client:
            long = {**SMALL, "num_inference_steps": 60, "num_images_per_prompt": 2}
            return await client.call_tool("generate", long, progress_callback=report)

    result = asyncio.run(called())
    assert not result.is_error
    assert [picture.size for picture in pictures(result)] == [(128, 128)] * 2
    assert len(steps) > 2 and steps == sorted(steps) and {of for _, of in steps} == {60}
    assert len(links(result)) == 2
    linked = httpx.get(links(result)[0], headers=KEY)
    assert Image.open(io.BytesIO(linked.content)).size == (128, 128)
    assert httpx.get(links(result)[0]).status_code == 401


def test_an_image_goes_on_by_its_link(keyed: Server) -> None:
    first = call(keyed, "generate", **SMALL, show="links")
    assert pictures(first) == []
    edited = call(keyed, "edit", **SMALL, img=links(first)[0], strength=0.5)
    assert pictures(edited)[0].size == (128, 128)
    larger = call(keyed, "upscale", img=links(edited)[0], scale=2)
    assert pictures(larger)[0].size == (256, 256)
    painted = call(keyed, "inpaint", **SMALL, img=links(first)[0], mask=PICTURE)
    assert pictures(painted)[0].size == (128, 128)
    stolen = call(keyed, "edit", "other", **SMALL, img=links(first)[0])
    assert "no such image" in reason(stolen)


def test_a_job_is_followed_later_and_cancelled(keyed: Server) -> None:
    started = call(keyed, "generate", **SMALL, wait=False)
    assert started.structured_content["state"] in ("queued", "running", "succeeded")
    id = started.structured_content["id"]
    assert len(pictures(call(keyed, "follow_job", id=id))) == 1
    assert "no job" in reason(call(keyed, "follow_job", "other", id=id))
    long = {**SMALL, "num_inference_steps": 150, "num_images_per_prompt": 8}
    id = call(keyed, "generate", **long, wait=False).structured_content["id"]
    call(keyed, "cancel_job", id=id)
    assert "cancelled" in reason(call(keyed, "follow_job", id=id))


def test_models_are_listed(keyed: Server) -> None:
    models = call(keyed, "list_models").structured_content["models"]
    assert models[0]["name"] == "embedded"


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("generate", {"prompt": "x", "num_inference_steps": 0}, "num_inference_steps"),
        ("generate", {"prompt": "x", "colour": "red"}, "colour"),
        ("generate", {}, "prompt"),
        ("generate", {**SMALL, "show": "both"}, "show"),
        ("edit", SMALL, "img"),
        ("edit", {**SMALL, "img": "!"}, "img"),
        ("generate", {**SMALL, "img": PICTURE}, "takes no image"),
        ("edit", {**SMALL, "img": PICTURE, "mask": PICTURE}, "takes no mask"),
        ("upscale", {"img": PICTURE, "mask": PICTURE}, "takes no mask"),
        ("edit", {**SMALL, "img": 5}, "img"),
        ("edit", {**SMALL, "img": "https://example.com/a.png"}, "img"),
        ("follow_job", {}, "id"),
        ("follow_job", {"id": "nobody"}, "nobody"),
        ("paint", {}, "paint"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(
    keyed: Server, name: str, arguments: dict[str, Any], named: str
) -> None:
    assert named in reason(call(keyed, name, **arguments))


def test_the_door(keyed: Server) -> None:
    url = f"{keyed.url}/mcp"
    assert httpx.post(url, timeout=300, json=INITIALIZE, headers=ACCEPT).status_code == 401
    there = {**ACCEPT, **KEY}
    assert httpx.post(url, timeout=300, json=INITIALIZE, headers=there).status_code == 200
    page = {**there, "Origin": "https://elsewhere.example"}
    assert httpx.post(url, timeout=300, json=INITIALIZE, headers=page).status_code == 403
    assert httpx.post(
        url, timeout=300, json=INITIALIZE, headers={**there, "Origin": keyed.url}
    ).is_success


def test_no_stream_is_kept_open_for_what_the_service_never_sends(keyed: Server) -> None:
    """A stop would wait for its end; 405 is what clients expect where there is none."""
    for method in ("GET", "DELETE"):
        with httpx.stream(method, f"{keyed.url}/mcp", headers={**ACCEPT, **KEY}) as answer:
            assert (answer.status_code, answer.headers.get("allow")) == (405, "POST")


def test_the_example(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "output.jpg"
    command = [sys.executable, "examples/mcp_client.py", server.url, "two hills", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "tools: generate" in done.stdout and "step" in done.stdout
    assert Image.open(path).size == (128, 128)
