"""The handlers of `/sdapi/v1`, as clients of the Stable Diffusion WebUI call it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.generation import Generation
from api.http import forms, uploads
from api.http.decoding import decoded
from api.http.forms import Form
from api.http.responses import cache_header, in_thread
from api.http.validation import json_object, validated
from api.progress.live import Hub
from api.webui import (
    answers,
    catalog,
    controlnet,
    enlarge,
    pictures,
    restore,
    samplers,
    translate,
)
from api.webui.body import GenerationBody
from api.webui.tickets import Tickets
from runnables.errors import Cancelled
from runnables.images import codec, infotext
from runnables.parameters import Inpaint, Parameters
from runnables.ticket import Inputs

ROOT = "/sdapi/v1"
EXTENSION = "/controlnet"  # where the WebUI's ControlNet extension answers


class Picture(BaseModel):
    """The body of `png-info`."""

    image: str


class WebUIRoutes:
    """The handlers.

    Args:
        hub: Progress hears of previews there.
    """

    def __init__(self, generation: Generation, hub: Hub) -> None:
        self._generation = generation
        self._hub = hub
        self._tickets = Tickets()
        self._chosen = catalog.Chosen()

    def routes(self) -> list[Route]:
        """Return the routes, which are to be mounted at the root."""
        runnable = self._generation.runnable
        reads: dict[str, Callable[[], Any]] = {
            "samplers": samplers.sampler_list,
            "schedulers": samplers.schedule_list,
            "loras": lambda: catalog.lora_list(runnable.listed("loras")),
            "embeddings": lambda: catalog.embedding_list(runnable.listed("embeddings")),
            "upscalers": lambda: enlarge.lists(runnable.listed("upscalers")),
            "latent-upscale-modes": enlarge.latent_modes,
            "sd-models": lambda: catalog.model_list(self._generation.models()),
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
            "model_list": lambda: controlnet.model_list(runnable.listed("controlnets")),
            "module_list": lambda: controlnet.MODULES,
        }
        return [
            *(Route(f"{ROOT}/{name}", self._reader(read)) for name, read in reads.items()),
            *(Route(f"{EXTENSION}/{name}", self._reader(read)) for name, read in extension.items()),
            *(Route(f"{ROOT}/{name}", post, methods=["POST"]) for name, post in posts.items()),
            Route(f"{ROOT}/options", self._options),
            Route(f"{ROOT}/progress", self._progress),
        ]

    # -- generating -------------------------------------------------------------------------

    async def _txt2img(self, request: Request) -> Response:
        with self._generation.admitted(request, "txt2img") as owner:
            return await self._generate(request, owner, image=False)

    async def _img2img(self, request: Request) -> Response:
        with self._generation.admitted(request, "img2img") as owner:
            return await self._generate(request, owner, image=True)

    async def _generate(self, request: Request, owner: str, image: bool) -> Response:
        generation = self._generation
        sent = json_object(await request.body())
        body = validated(GenerationBody, sent)
        form = await self._form(_chooser(request, owner), body, image)
        ticket = await generation.submit(request, owner, form)
        with (
            self._hub.listening((owner, ticket.id), 0) as listener,
            self._tickets.following(owner, ticket, listener) as running,
        ):
            try:
                result = await generation.wait(request, ticket)
            except Cancelled:
                if not running.interrupted:
                    raise
                generation.outcome(request).status = Cancelled.status
                return JSONResponse(answers.interrupted(body, sent))
        response = await in_thread(answers.images, result, body, sent, generation)
        response.headers.update(cache_header(result))
        return response

    async def _form(self, owner: str, body: GenerationBody, image: bool) -> Form:
        model = translate.task_of(body, image)
        parameters = await asyncio.to_thread(self._parameters, owner, body, model)
        units = controlnet.units(body.alwayson_scripts)
        settings = self._generation.settings
        controls = [
            await uploads.image(text, "control", settings) if (text := unit.source()) else None
            for unit in units
        ]
        sent = await uploads.image(body.init_images[0], "init_images", settings) if image else None
        mask = await uploads.mask(body.mask or "", settings) if model is Inpaint else None
        inputs = await run_in_threadpool(pictures.prepared, body, sent, mask, units, controls)
        return Form(parameters, inputs)

    def _parameters(self, owner: str, body: GenerationBody, model: type[Parameters]) -> Parameters:
        runnable = self._generation.runnable
        words = [one["name"] for one in runnable.listed("embeddings")]
        options, known = body.override_settings, self._generation.models()
        named = catalog.model_of(options, known, "override_settings")
        chosen = named or self._chosen.of(owner, known)
        native = catalog.described(runnable.models(), chosen)
        parameters = translate.parameters(body, model, words, native)
        return parameters.model_copy(update={"model": chosen})

    # -- enlarging --------------------------------------------------------------------------

    async def _extra_single(self, request: Request) -> Response:
        with self._generation.admitted(request, "upscale") as owner:
            body = forms.parse(enlarge.Single, await request.body())
            larger = await self._enlarge(request, owner, body, body.image, "image")
            return await in_thread(lambda: {"html_info": "", "image": larger})

    async def _extra_batch(self, request: Request) -> Response:
        with self._generation.admitted(request, "upscale") as owner:
            body = forms.parse(enlarge.Several, await request.body())
            larger = [
                await self._enlarge(request, owner, body, one.data, "imageList")
                for one in body.imageList
            ]
            return await in_thread(lambda: {"html_info": "", "images": larger})

    async def _enlarge(
        self, request: Request, owner: str, body: enlarge.Extras, text: str, field: str
    ) -> str:
        """Return an image in base64, enlarged."""
        parameters = enlarge.parameters(body)
        picture = await uploads.image(text, field, self._generation.settings)
        form = Form(parameters, Inputs(picture))
        result = await self._generation.run(request, owner, form)
        return await run_in_threadpool(answers.file, result, result.images[0], self._generation)

    # -- while it runs ----------------------------------------------------------------------

    async def _progress(self, request: Request) -> Response:
        owner = self._generation.keys.check(request.headers)
        running = self._tickets.of(owner)
        skip = request.query_params.get("skip_current_image", "").lower() in ("true", "1")
        preview = running[0].look() if running and not skip else None
        return await in_thread(answers.progress, running, preview)

    async def _interrupt(self, request: Request) -> Response:
        self._tickets.interrupt(self._generation.keys.check(request.headers))
        return JSONResponse({})

    # -- what there is ----------------------------------------------------------------------

    def _reader(self, read: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            self._generation.keys.check(request.headers)
            return JSONResponse(await asyncio.to_thread(read))

        return answer

    async def _options(self, request: Request) -> Response:
        owner = _chooser(request, self._generation.keys.check(request.headers))
        known = await asyncio.to_thread(self._generation.models)
        return JSONResponse(catalog.options(self._chosen.of(owner, known) or known[0]))

    async def _set_options(self, request: Request) -> Response:
        owner = _chooser(request, self._generation.keys.check(request.headers))
        options = json_object(await request.body())
        known = await asyncio.to_thread(self._generation.models)
        model = catalog.model_of(options, known, "body")
        if model is not None:
            self._chosen.set(owner, model)
        return JSONResponse(None)

    async def _nothing(self, request: Request) -> Response:
        self._generation.keys.check(request.headers)
        return JSONResponse(None)

    async def _png_info(self, request: Request) -> Response:
        owner = _chooser(request, self._generation.keys.check(request.headers))
        picture = forms.parse(Picture, await request.body())
        data = await uploads.read(picture.image, "image", self._generation.settings)
        limit = self._generation.settings.max_pixels
        texts = await decoded(codec.read_texts, data, max_pixels=limit, field="image")
        info = texts.get(codec.WEBUI_TEXT, "")
        found = await run_in_threadpool(infotext.parse, info)
        native = await run_in_threadpool(self._restored, owner, texts, found)
        answer = {"info": info, "items": texts, "parameters": found, "native": native}
        return await in_thread(lambda: answer)

    def _restored(
        self, owner: str, texts: dict[str, str], settings: dict[str, str]
    ) -> dict[str, Any] | None:
        """Return an image's parameters as our own endpoints take them, if there are any."""

        def translated(body: dict[str, Any], model: type[Parameters]) -> Parameters:
            return self._parameters(owner, validated(GenerationBody, body), model)

        return restore.ours(texts) or restore.translated(
            settings, self._generation.models(), translated
        )


def _chooser(request: Request, owner: str) -> str:
    """Return whose choice of a model holds: the key's owner, else the address that called."""
    return owner or (request.client.host if request.client else "")
