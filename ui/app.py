"""A small Gradio page in front of a service elsewhere: a prompt, few settings, one picture."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr
from fastapi import FastAPI
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ui import generation
from ui.client import Service, ServiceError

#: handlers that other programs do not call: they have the service's own API
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
Update = list[Any]  # job, picture, line of text


def build(service: Service, app: FastAPI) -> FastAPI:
    """Mount Gradio at `/`, after the routes of `app`; the caller runs its lifespan."""
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        Page(service).blocks,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        theme=gr.themes.Default(
            primary_hue="indigo",
            font=["system-ui", "sans-serif"],  # nothing is fetched from elsewhere
            font_mono=["ui-monospace", "monospace"],
        ),
        enable_monitoring=False,
    )
    mounted.add_middleware(WithoutUploads)
    return mounted


class WithoutUploads:
    """ASGI middleware: no field of this page takes a file, and Gradio would take any."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        uploads = scope["type"] == "http" and scope["path"].rstrip("/").endswith("/upload")
        refused = PlainTextResponse("this page takes no files", 404)
        await (refused if uploads else self._app)(scope, receive, send)


class Page:
    """The page of one service; `blocks` is to be mounted."""

    def __init__(self, service: Service) -> None:
        self._service = service
        with gr.Blocks(title="Stable Diffusion", analytics_enabled=False) as self.blocks:
            self._lay_out()
        self.blocks.queue(default_concurrency_limit=None)  # the service does the queueing

    def _lay_out(self) -> None:
        gr.Markdown("# Stable Diffusion")
        key = gr.Textbox(label="API key", type="password", visible=False, elem_id="key")
        with gr.Row():
            with gr.Column():
                fields = _fields()
                start = gr.Button("Generate", variant="primary", elem_id="generate")
                stop = gr.Button("Stop", elem_id="stop")
            with gr.Column():
                picture = gr.Image(show_label=False, interactive=False, elem_id="result")
                line = gr.Markdown("Your picture will appear here.", elem_id="line")
        job = gr.State("")
        self.blocks.load(self.needs_key, None, key, **PRIVATE)
        gr.on(
            [start.click, fields[0].submit],
            self.generate,
            [key, *fields],
            [job, picture, line],
            **PRIVATE,
        )
        stop.click(self.stop, [job, key], None, **PRIVATE)

    async def needs_key(self) -> Any:
        """Return whether the field for a key is shown: where the service asks for one."""
        try:
            await self._service.models()
        except ServiceError as error:
            return gr.update(visible=error.status == 401)
        return gr.update(visible=False)

    async def generate(
        self, key: str, prompt: str, negative: str, steps: float | None, seed: str
    ) -> AsyncGenerator[Update]:
        """Yield the job's id, a picture and a line of text, until the picture is finished.

        An empty field is left to the service, as is one that is no number, which it refuses.
        """
        given = {
            "prompt": prompt,
            "negative_prompt": negative,
            "num_inference_steps": int(steps) if steps else None,
            "seed": int(seed) if seed.strip().isdecimal() else seed.strip() or None,
            "output_format": "png",
        }
        parameters = {name: value for name, value in given.items() if value not in (None, "")}
        last: dict[str, Any] = {}
        try:
            async with aclosing(generation.run(self._service, parameters, key)) as events:
                async for last in events:
                    yield _running(last)
            yield await self._ended(last, key)
        except ServiceError as error:
            raise gr.Error(error.message, title=error.field or "The service says") from error

    async def stop(self, job: str, key: str) -> None:
        """Stop a job; its events say when it has ended."""
        if job:
            await self._service.cancel(job, key)

    async def _ended(self, job: dict[str, Any], key: str) -> Update:
        if job["state"] == "cancelled":
            return ["", gr.skip(), "Stopped."]
        image, data = await generation.picture_of(self._service, job, key)
        line = f"seed {image['seed']}"
        if image["finish_reason"] != "success":
            line = f"The safety checker objected to this image. {line}"
        return ["", _opened(data), line]


def _fields() -> list[Any]:
    """Return prompt, negative prompt, steps and seed."""
    return [
        gr.Textbox(label="Prompt", placeholder="View of a cyberpunk city", elem_id="prompt"),
        gr.Textbox(label="Negative prompt", placeholder="What to keep out", elem_id="negative"),
        gr.Number(label="Steps", placeholder="the model's own", precision=0, elem_id="steps"),
        gr.Textbox(label="Seed", placeholder="a new one each time", elem_id="seed"),
    ]


def _running(event: dict[str, Any]) -> Update:
    """Return the update for a job's document, which has its id, or for its progress."""
    preview = event.get("preview")
    job = event["id"] if "id" in event else gr.skip()
    picture = _opened(generation.decoded(preview)) if preview else gr.skip()
    return [job, picture, generation.line(event)]


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))
