"""The handlers of clicks on the page, which return updates of its components."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from ui import controls, form, generation, pictures, stage
from ui.client import NOT_THERE, Service, ServiceError

#: images of a session that stay on the page
GALLERY = 60
FILTERED = "The safety checker objected to this image."
Entry = dict[str, Any]  # an image of the session: path, task, finish_reason, parameters


class Handlers:
    """The handlers for one service; a visitor's state travels in arguments.

    The order of what is returned is that of the outputs in `ui.page`.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def load(self, key: str) -> list[Any]:
        """Return title, key field, retry timer, and all fields, as this service has them."""
        try:
            catalog = await self._service.catalog(key)
        except ServiceError as error:
            key_field = gr.update(visible=True) if error.status == 401 else gr.skip()
            retry = gr.update(active=error.status in NOT_THERE)
            return [_title(_why(error, key)), key_field, retry, *[gr.skip()] * len(form.FIELDS)]
        name = catalog.models[0]["name"]
        return [_title(name), gr.skip(), gr.update(active=False), *controls.fitted(catalog)]

    async def generate(
        self, task: str, picture: Any, painted: Any, key: str, shown: list[Entry], *values: Any
    ) -> AsyncGenerator[list[Any], None]:
        """Yield job, buttons, stage and view while a job runs; then the session's images, too.

        Args:
            values: The values of form.FIELDS, then the further parameters.
        """
        *fields, more = values
        final: dict[str, Any] = {}
        preview = None
        try:
            parameters = form.to_parameters(task, fields, more)
            files = await asyncio.to_thread(pictures.files, task, picture, painted)
            jobs = generation.run(self._service, task, parameters, files, key)
            async with aclosing(jobs):
                async for final in jobs:
                    preview = final.get("preview") or preview  # stays until there is a newer one
                    yield _running({**final, "preview": preview})
            yield await self._ended(final, key, shown)
        except ServiceError as error:
            yield _stopped(stage.message(error.message, kind="error"))
            raise _toast(error) from error

    async def _ended(self, job: dict[str, Any], key: str, shown: list[Entry]) -> list[Any]:
        if job["state"] == "cancelled":
            return _stopped(stage.message("Cancelled."))
        images = await generation.collect(self._service, job, key)
        entries = await asyncio.to_thread(lambda: [_entry(image) for image in images])
        shown = [*entries, *shown][:GALLERY]
        paths = [entry["path"] for entry in shown]
        return [*_idle(), *view(shown, 0), shown, gr.update(value=paths, visible=True)]

    async def cancel(self, job: str, key: str) -> Any:
        """Stop a job. Return the button, switched off: the job's events say when it has ended."""
        try:
            await self._service.cancel(job, key)
        except ServiceError as error:
            raise _toast(error) from error
        return gr.update(interactive=False)

    async def recall_file(self, path: str, task: str, model: str | None, key: str) -> list[Any]:
        """Return the emptied drop field; task, tab and fields of an image that was dropped."""
        try:
            data = await asyncio.to_thread(Path(path).read_bytes)
            parameters = await self._service.parameters_in(data, key)
        except ServiceError as error:
            raise _toast(error) from error
        if "strength" not in parameters:
            task = "txt2img"
        elif task == "txt2img":
            task = "img2img"
        gr.Info("Parameters restored.", duration=3)
        return [None, *_recalled(task, parameters, model)]


def choose(shown: list[Entry], event: gr.SelectData) -> list[Any]:
    """Return stage and view of the image that was clicked in the gallery."""
    return view(shown, int(event.index))


def view(shown: list[Entry], chosen: int) -> list[Any]:
    """Return stage, image, its line of text, its buttons, and its number."""
    entry = shown[chosen]
    text = form.summary(entry["parameters"])
    if entry["finish_reason"] != "success":
        text = f"**{FILTERED}** {text}"
    return [
        gr.update(visible=False),
        gr.update(value=entry["path"], visible=True),
        text,
        gr.update(visible=True),
        chosen,
    ]


def recall_shown(shown: list[Entry], chosen: int, model: str | None) -> list[Any]:
    """Return task, tab and fields of an image of the session."""
    return _recalled(shown[chosen]["task"], shown[chosen]["parameters"], model)


def go_on(shown: list[Entry], chosen: int) -> list[Any]:
    """Return task, tab and picture, for an image of the session to start from."""
    return ["img2img", gr.update(selected="img2img"), shown[chosen]["path"]]


def seed_of(shown: list[Entry], chosen: int) -> Any:
    """Return the seed of the image that is shown."""
    return str(shown[chosen]["parameters"].get("seed", "")) if shown else gr.skip()


def task_chosen(task: str) -> tuple[Any, ...]:
    """Return the task, and which of the fields in NOT_OF are visible."""
    return task, *(gr.update(visible=task not in tasks) for tasks in form.NOT_OF.values())


def _recalled(task: str, parameters: dict[str, Any], model: str | None) -> list[Any]:
    values, more = form.to_values(parameters)
    updates = {name: gr.update(value=value) for name, value in values.items()}
    for name in ("num_inference_steps", "guidance_scale", "strength", "num_images_per_prompt"):
        if values[name] is None:  # a slider always has a value
            updates[name] = gr.update()
    if not model:  # there is none to choose
        updates["model"] = gr.update()
    updates["scheduler"] = gr.update(value=values["scheduler"] or "")
    for name, tasks in form.NOT_OF.items():
        updates[name] = gr.update(**updates[name], visible=task not in tasks)
    return [task, gr.update(selected=task), *(updates[name] for name in form.FIELDS), more]


def _entry(image: generation.Shown) -> Entry:
    return {
        "path": save_bytes_to_cache(image.data, image.name, get_upload_folder()),
        "task": image.task,
        "finish_reason": image.finish_reason,
        "parameters": image.parameters,
    }


def _running(event: dict[str, Any]) -> list[Any]:
    """Return the updates while a job runs. Its first event, the document, has its id."""
    shown = gr.update(value=stage.progress(event), visible=True)
    if "id" not in event or event["state"] not in ("queued", "running"):
        return [gr.skip(), gr.skip(), gr.skip(), shown, *[gr.skip()] * 6]
    hidden = gr.update(visible=False)
    cancel = gr.update(visible=True, interactive=True)
    return [event["id"], hidden, cancel, shown, hidden, "", hidden, *[gr.skip()] * 3]


def _stopped(text: str) -> list[Any]:
    return [*_idle(), gr.update(value=text, visible=True), *[gr.skip()] * 6]


def _idle() -> list[Any]:
    return ["", gr.update(visible=True), gr.update(visible=False)]


def _title(text: str) -> str:
    return f"# Stable Diffusion\n{text}"


def _why(error: ServiceError, key: str) -> str:
    if error.status == 401:
        return "This key is not known here." if key else "An API key is needed."
    return error.message


def _toast(error: ServiceError) -> gr.Error:
    title = error.field.replace("_", " ") or "The service says"
    return gr.Error(error.message, title=title, print_exception=False)
