"""`/mcp` over streamable HTTP, by the official SDK.

No session is kept: every request stands alone, so any process of a service can answer it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from api.generation import Generation
from api.http.validation import json_object
from api.jobs.jobs import Jobs
from api.mcp import tools
from runnables.version import VERSION

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

    from api.mcp.calls import Calls


@dataclass(eq=False)
class McpRoutes:
    """The endpoint."""

    jobs: Jobs
    generation: Generation

    def routes(self) -> list[Route]:
        """Return the route, which is to be mounted at the root.

        `GET` would open a stream for what a server sends by itself: that is nothing here, and a
        stop would wait for its end. The protocol wants 405 then.
        """
        return [Route("/mcp", self, methods=["POST"])]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Raise Unauthorized without a key where one is needed."""
        request = Request(scope, receive)
        owner = self.generation.keys.check(request.headers)
        body = await request.body()
        json_object(body)  # the SDK would parse any number of values
        receive = _again(body, receive)
        await asyncio.to_thread(_load)
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from api.mcp.calls import Calls

        calls = Calls(self.jobs, self.generation, request, owner)
        limit = round(self.generation.settings.max_body_mb * 1e6)
        sessions = StreamableHTTPSessionManager(
            _server(calls), stateless=True, max_request_body_size=limit
        )
        async with sessions.run():
            await sessions.handle_request(scope, receive, send)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that begins with a body that has been read."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received


def _load() -> None:
    """Import the SDK, which takes seconds, when the first agent comes."""
    import mcp.server.lowlevel  # noqa: F401


def _server(calls: Calls) -> Server[Any]:
    """Return the protocol's side of one caller's calls."""
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server
    from mcp_types import (
        CallToolRequestParams,
        CallToolResult,
        ListToolsResult,
        PaginatedRequestParams,
        Tool,
    )

    async def listed(
        context: ServerRequestContext[Any], parameters: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(
            tools=[
                Tool(name=name, description=text, input_schema=schema)
                for name, (text, schema) in tools.schemas().items()
            ]
        )

    async def called(
        context: ServerRequestContext[Any], parameters: CallToolRequestParams
    ) -> CallToolResult:
        async def report(step: float, steps: float, message: str) -> None:
            await context.session.report_progress(step, steps, message)

        return await calls.call(parameters.name, parameters.arguments or {}, report)

    return Server("stable-diffusion", version=VERSION, on_list_tools=listed, on_call_tool=called)
