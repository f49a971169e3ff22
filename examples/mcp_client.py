"""An MCP client for an agent, with the official SDK (`pip install mcp httpx2`).

    python examples/mcp_client.py http://127.0.0.1:3000 "View of a cyberpunk city" output.jpg

The API key, where the service has keys, is in SD_KEY.
"""

import asyncio
import base64
import os
import sys

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client


async def main(service: str, prompt: str, path: str) -> None:
    """Generate one image and write its file."""
    key = os.environ.get("SD_KEY", "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def report(step: float, steps: float | None, message: str | None) -> None:
        print(f"{message}: step {step:g} of {steps or 0:g}")

    async with (
        httpx2.AsyncClient(headers=headers, timeout=600) as http,
        Client(streamable_http_client(f"{service}/mcp", http_client=http)) as client,
    ):
        found = await client.list_tools()
        print("tools:", ", ".join(tool.name for tool in found.tools))
        result = await client.call_tool("generate", {"prompt": prompt}, progress_callback=report)
        for block in result.content:
            if block.type == "image":
                with open(path, "wb") as file:
                    file.write(base64.b64decode(block.data))
            elif block.type == "resource_link":
                print("link:", block.uri)
        if result.is_error:
            sys.exit(result.content[0].text)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
