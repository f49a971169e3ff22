"""`/sdapi/v1`, as clients of the Stable Diffusion WebUI call it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from PIL.Image import Image
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api import forms, request_id
from api.drawing import Drawing
from api.forms import Form
from api.jobs.live import Hub
from api.webui import answers, catalog, controlnet, enlarge, infotext, translate, uploads
from api.webui.controlnet import Unit
from api.webui.tickets import Tickets
from api.webui.translate import Asked
from runnables import images
from runnables.errors import Cancelled, InvalidInput
from runnables.parameters import Inpaint, Parameters

ROOT = "/sdapi/v1"
EXTENSION = "/controlnet"  # where the WebUI's ControlNet extension answers


class Picture(BaseModel):
    """The body of png-info."""

    image: str


class WebUIRoutes:
    """Handlers.

    Args:
        hub: where progress hears of previews.
    """

    def __init__(self, drawing: Drawing, hub: Hub) -> None:
        self._drawing = drawing
        self._hub = hub
        self._tickets = Tickets()

    def routes(self) -> list[Route]:
        """To be mounted at the root."""
        runnable = self._drawing.runnable
        reads: dict[str, Callable[[], Any]] = {
            "samplers": lambda: catalog.sampler_list(runnable.samplers()),
            "schedulers": lambda: catalog.scheduler_list(runnable.spacings()),
            "loras": lambda: catalog.lora_list(runnable.loras()),
            "embeddings": lambda: catalog.embedding_list(runnable.embeddings()),
            "upscalers": lambda: enlarge.lists(runnable.upscalers()),
            "latent-upscale-modes": enlarge.latent_modes,
            "sd-models": lambda: catalog.model_list(self._drawing.models),
            "options": lambda: catalog.options(self._drawing.models[0]),
            **{name: partial(dict.get, catalog.EMPTY, name) for name in catalog.EMPTY},
        }
        posts: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "txt2img": self._txt2img,
            "img2img": self._img2img,
            "extra-single-image": self._extra_single,
            "extra-batch-images": self._extra_batch,
            "options": self._set_options,
            "interrupt": self._interrupt,
            "skip": self._interrupt,
            "refresh-checkpoints": self._nothing,
            "png-info": self._png_info,
        }
        extension: dict[str, Callable[[], Any]] = {
            "model_list": lambda: controlnet.model_list(runnable.controlnets()),
            "module_list": lambda: controlnet.MODULES,
        }
        return [
            *(Route(f"{ROOT}/{name}", self._reader(read)) for name, read in reads.items()),
            *(Route(f"{EXTENSION}/{name}", self._reader(read)) for name, read in extension.items()),
            *(Route(f"{ROOT}/{name}", post, methods=["POST"]) for name, post in posts.items()),
            Route(f"{ROOT}/progress", self._progress),
        ]

    # -- drawing ----------------------------------------------------------------------------

    async def _txt2img(self, request: Request) -> Response:
        with self._drawing.admitted(request, "txt2img") as owner:
            return await self._draw(request, owner, image=False)

    async def _img2img(self, request: Request) -> Response:
        with self._drawing.admitted(request, "img2img") as owner:
            return await self._draw(request, owner, image=True)

    async def _draw(self, request: Request, owner: str, image: bool) -> Response:
        drawing = self._drawing
        sent = forms.json_object(await request.body())
        asked = forms.validated(Asked, sent)
        translate.check(asked)
        form = await self._form(asked, image)
        key = (owner, request_id.of(request))
        with self._hub.listening(key, 0) as listener:
            ticket = await drawing.submit(request, owner, form)
            with self._tickets.following(owner, ticket, listener) as drawn:
                try:
                    result = await drawing.wait(request, ticket)
                except Cancelled:
                    if not drawn.interrupted:
                        raise
                    drawing.count(form.parameters.task, Cancelled.status)
                    return JSONResponse(answers.interrupted(asked, sent))
        return JSONResponse(await run_in_threadpool(answers.body, result, asked, sent, drawing))

    async def _form(self, asked: Asked, image: bool) -> Form:
        parameters, units = await self._parameters(asked, image)
        if not image:
            return Form(parameters, controls=await self._controls(asked, units, None))
        sent = await self._image(asked.init_images[0], "init_images")
        controls = await self._controls(asked, units, sent)
        pixels = translate.fitted(sent, asked)
        if not isinstance(parameters, Inpaint):
            return Form(parameters, pixels, controls=controls)
        settings = self._drawing.settings
        data = await uploads.read(asked.mask or "", "mask", settings)
        mask = await run_in_threadpool(images.decode_mask, data, max_pixels=settings.max_pixels)
        mask = translate.redrawn(translate.fitted(mask, asked), asked)
        return Form(parameters, pixels, mask, controls)

    async def _parameters(self, asked: Asked, image: bool) -> tuple[Parameters, list[Unit]]:
        model, runnable = translate.task_of(asked, image), self._drawing.runnable
        if image and asked.enable_hr:
            raise InvalidInput("the second pass is txt2img's", loc=("enable_hr",))
        units = controlnet.units(asked.alwayson_scripts)
        words = [one["name"] for one in await asyncio.to_thread(runnable.embeddings)]
        hires = enlarge.hires(asked, runnable.describe())
        resolve = runnable.webui_sampler
        parameters = translate.parameters(asked, model, resolve, units, words, hires)
        options, known = asked.override_settings, self._drawing.models
        chosen = catalog.check_model(options, known, "override_settings")
        return parameters.model_copy(update={"model": chosen}), units

    async def _controls(
        self, asked: Asked, units: list[Unit], image: Image | None
    ) -> tuple[Image, ...]:
        """The units' images; one without is controlled by the image that is redrawn."""
        size = (asked.width, asked.height) if asked.width and asked.height else None
        controls = []
        for unit in units:
            text = unit.given()
            sent = await self._image(text, "control") if text else image
            if sent is None:
                raise InvalidInput("a ControlNet unit needs an image", loc=controlnet.LOC)
            controls.append(controlnet.fitted(sent, unit, size))
        return tuple(controls)

    async def _image(self, text: str, field: str) -> Image:
        """RGB. Raises UnsupportedImage naming the field."""
        settings = self._drawing.settings
        data = await uploads.read(text, field, settings)
        return await run_in_threadpool(
            images.decode, data, max_pixels=settings.max_pixels, field=field
        )

    # -- enlarging --------------------------------------------------------------------------

    async def _extra_single(self, request: Request) -> Response:
        with self._drawing.admitted(request, "upscale") as owner:
            asked = forms.parse(enlarge.Single, await request.body())
            larger = await self._enlarge(request, owner, asked, asked.image, "image")
            return JSONResponse({"html_info": "", "image": larger})

    async def _extra_batch(self, request: Request) -> Response:
        with self._drawing.admitted(request, "upscale") as owner:
            asked = forms.parse(enlarge.Several, await request.body())
            larger = [
                await self._enlarge(request, owner, asked, one.data, "imageList")
                for one in asked.imageList
            ]
            return JSONResponse({"html_info": "", "images": larger})

    async def _enlarge(
        self, request: Request, owner: str, asked: enlarge.Extras, text: str, field: str
    ) -> str:
        """A picture in base64, enlarged."""
        parameters = enlarge.parameters(asked)
        form = Form(parameters, await self._image(text, field))
        result = await self._drawing.draw(request, owner, form)
        return await run_in_threadpool(answers.picture, result, result.images[0], self._drawing)

    # -- while it is drawn ------------------------------------------------------------------

    async def _progress(self, request: Request) -> Response:
        owner = self._drawing.keys.check(request.headers)
        drawn = self._tickets.of(owner)
        skip = request.query_params.get("skip_current_image", "").lower() in ("true", "1")
        preview = drawn[0].look() if drawn and not skip else None
        return JSONResponse(await run_in_threadpool(answers.progress, drawn, preview))

    async def _interrupt(self, request: Request) -> Response:
        self._tickets.interrupt(self._drawing.keys.check(request.headers))
        return JSONResponse({})

    # -- what there is ----------------------------------------------------------------------

    def _reader(self, read: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            self._drawing.keys.check(request.headers)
            return JSONResponse(await asyncio.to_thread(read))

        return answer

    async def _set_options(self, request: Request) -> Response:
        self._drawing.keys.check(request.headers)
        catalog.check_options(forms.json_object(await request.body()), self._drawing.models)
        return JSONResponse(None)

    async def _nothing(self, request: Request) -> Response:
        self._drawing.keys.check(request.headers)
        return JSONResponse(None)

    async def _png_info(self, request: Request) -> Response:
        self._drawing.keys.check(request.headers)
        picture = forms.parse(Picture, await request.body())
        data = await uploads.read(picture.image, "image", self._drawing.settings)
        limit = self._drawing.settings.max_pixels
        text, items = await run_in_threadpool(
            images.read_parameters, data, max_pixels=limit, field="image"
        )
        return JSONResponse({"info": text, "items": items, "parameters": infotext.parse(text)})
