"""The client over the in-process transport: bodies, streams, a client that goes away, errors."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ui.__main__ import address
from ui.client import Service, ServiceError
from ui.inprocess import InProcess

gone = asyncio.Event()


async def _events(request: Request) -> Response:
    async def endless() -> AsyncIterator[str]:
        try:
            yield 'event: progress\ndata: {"step": 1}\n\n'
            await asyncio.Event().wait()
        finally:
            gone.set()

    return StreamingResponse(endless(), media_type="text/event-stream")


async def _jobs(request: Request) -> Response:
    form = await request.form()
    told = {name: part if isinstance(part, str) else part.size for name, part in form.items()}
    return JSONResponse({**told, "key": request.headers.get("x-api-key")}, 202)


async def _refuse(request: Request) -> Response:
    return JSONResponse({"error": "no", "detail": [{"loc": ["data", "seed"], "msg": "no"}]}, 400)


async def _info(request: Request) -> Response:
    image = (await request.json())["image"]
    if image == base64.b64encode(b"no image").decode():
        return JSONResponse({"error": "Unsupported", "detail": "image is none"}, 415)
    native = {"prompt": "x"} if image == base64.b64encode(b"ours").decode() else None
    return JSONResponse({"native": native})


async def _broken(request: Request) -> Response:
    raise RuntimeError


@pytest.fixture
def service() -> Service:
    app = Starlette(
        routes=[
            Route("/jobs", _jobs, methods=["POST"]),
            Route("/jobs/1/events", _events),
            Route("/sdapi/v1/png-info", _info, methods=["POST"]),
            Route("/refused", _refuse),
            Route("/broken", _broken),
        ]
    )
    return Service(httpx.AsyncClient(transport=InProcess(app), base_url="http://service"), "ours")


def test_files_and_key_arrive(service: Service) -> None:
    told = asyncio.run(service.submit("img2img", {"prompt": "ä"}, {"img": b"12345"}))
    assert told["img"] == 5
    assert told["key"] == "ours"
    assert "parameters" in told["data"]


def test_events_come_while_the_response_goes_on_and_closing_ends_it(service: Service) -> None:
    async def first() -> tuple[str, Mapping[str, object]]:
        events = service.events("1")
        event = await anext(events)
        await events.aclose()
        await asyncio.wait_for(gone.wait(), 5)
        return event

    assert asyncio.run(first()) == ("progress", {"step": 1})


def test_errors_are_the_services_own_words(service: Service) -> None:
    with pytest.raises(ServiceError) as caught:
        asyncio.run(service.image("/refused"))
    assert (caught.value.message, caught.value.field, caught.value.status) == ("no", "seed", 400)


def test_the_parameters_in_an_image(service: Service) -> None:
    assert asyncio.run(service.parameters_in(b"ours")) == {"prompt": "x"}
    with pytest.raises(ServiceError, match="carries no parameters"):
        asyncio.run(service.parameters_in(b"another"))
    with pytest.raises(ServiceError, match="image is none"):
        asyncio.run(service.parameters_in(b"no image"))


def test_a_service_that_breaks_or_is_not_there(service: Service) -> None:
    with pytest.raises(ServiceError) as caught:
        asyncio.run(service.image("/broken"))
    assert caught.value.status in (0, 500)
    away = Service(httpx.AsyncClient(base_url="http://127.0.0.1:9"))
    with pytest.raises(ServiceError, match="cannot be reached"):
        asyncio.run(away.catalog())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ""),
        ({"SD_UI_SERVICE": "http://a:3000/", "SERVICE_NAME": "b"}, "http://a:3000"),
        ({"SERVICE_NAME": "http://ray:8000", "MODEL_ENDPOINT": "/imagine"}, "http://ray:8000"),
        ({"SERVICE_NAME": "ray:8000", "MODEL_ENDPOINT": "serve/imagine"}, "http://ray:8000/serve"),
    ],
)
def test_where_the_service_is(environment: dict[str, str], expected: str) -> None:
    assert address(environment) == expected
