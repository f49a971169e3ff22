"""The layout of the page, and which handler answers which click."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ui import controls, handlers, stage
from ui.client import Service
from ui.form import NOT_OF
from ui.guard import COOKIE

TASKS = {"txt2img": "From text", "img2img": "From image", "inpaint": "Inpaint"}
STYLE = Path(__file__).with_name("style.css")
#: seconds after which files of a session may go
KEEP_S = 6 * 3600
#: seconds between looks at a service that is not ready
RETRY_S = 2.0
#: settings lie open where there is room for them
ROOM = """() => ({open: window.innerWidth > 900, __type__: "update"})"""
#: uploads carry no fields of the page: the key goes with them as a cookie of this page alone
KEEP_KEY = f"""(key) => {{
  const kept = `{COOKIE}=${{encodeURIComponent(key)}}`;
  document.cookie = `${{kept}}; path=${{location.pathname}}; SameSite=Strict`;
  return key;
}}"""
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def theme() -> Any:
    """Return the theme, with the system's own fonts: nothing is fetched from elsewhere."""
    return gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


class Page:
    """The page of one service; `blocks` is to be mounted."""

    def __init__(self, service: Service) -> None:
        self._handlers = handlers.Handlers(service)
        with gr.Blocks(
            title="Stable Diffusion", analytics_enabled=False, delete_cache=(600, KEEP_S)
        ) as self.blocks:
            self._task = gr.State("txt2img")
            self._job = gr.State("")
            self._shown: Any = gr.State([])
            self._chosen = gr.State(0)
            self._timer = gr.Timer(RETRY_S, active=False)
            self._lay_out()
            self._wire()
        self.blocks.queue(default_concurrency_limit=None)  # the service does the queueing

    # -- layout -----------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self._title = gr.Markdown("# Stable Diffusion\n&nbsp;", elem_id="title")
        self._key = gr.Textbox(
            label="API key", type="password", visible=False, elem_id="key", max_lines=1
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=320):
                self._lay_out_left()
            with gr.Column(scale=1, min_width=320):
                self._lay_out_right()

    def _lay_out_left(self) -> None:
        with gr.Tabs(elem_id="tasks") as self._tabs:
            self._tab = {task: self._lay_out_task(task, text) for task, text in TASKS.items()}
        self._controls = controls.prompts()
        self._generate = gr.Button("Generate", variant="primary", size="lg", elem_id="generate")
        self._cancel = gr.Button(
            "Cancel", variant="stop", size="lg", elem_id="cancel", visible=False
        )
        with gr.Accordion("Settings", open=False, elem_id="settings") as self._settings:
            self._controls |= controls.settings()
            with gr.Row(elem_id="seeds"):
                self._controls["seed"] = controls.seed()
                self._random = gr.Button("Random", size="sm", min_width=80, elem_id="random")
                self._reuse = gr.Button("Reuse", size="sm", min_width=80, elem_id="reuse")
            self._more = gr.Textbox(
                label="Further parameters (JSON)",
                placeholder='{"guidance_rescale": 0.7}',
                lines=1,
                max_lines=6,
                elem_id="more",
            )

    def _lay_out_task(self, task: str, text: str) -> Any:
        with gr.Tab(text, id=task) as tab:
            if task == "img2img":
                self._picture = gr.Image(
                    label="Image to start from",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    height=300,
                    elem_id="picture",
                )
            elif task == "inpaint":
                self._editor = gr.ImageMask(
                    label="Paint over what is to change",
                    type="pil",
                    format="png",
                    sources=["upload", "clipboard"],
                    brush=gr.Brush(colors=["#ffffff"], color_mode="fixed"),
                    transforms=(),
                    elem_id="editor",
                )
        return tab

    def _lay_out_right(self) -> None:
        self._stage = gr.HTML(stage.EMPTY, elem_id="stage")
        self._result = gr.Image(
            label="Image",
            show_label=False,
            type="filepath",
            interactive=False,
            visible=False,
            buttons=["download", "fullscreen"],
            elem_id="result",
        )
        self._details = gr.Markdown(elem_id="details")
        with gr.Row(visible=False, elem_id="actions") as self._actions:
            self._again = gr.Button(
                "Use these parameters again", size="md", min_width=150, elem_id="again"
            )
            self._onward = gr.Button(
                "Change this image", size="md", min_width=150, elem_id="onward"
            )
        self._gallery = gr.Gallery(
            label="This session",
            columns=4,
            height="auto",
            object_fit="cover",
            allow_preview=False,
            fit_columns=False,
            visible=False,
            interactive=False,
            elem_id="gallery",
        )
        self._file = gr.File(
            label="Drop an image to restore its parameters",
            file_types=["image"],
            height=140,
            elem_id="restore",
        )

    # -- wiring -----------------------------------------------------------------------------

    def _wire(self) -> None:
        fields = [*controls.in_order(self._controls), self._more]
        self._wire_catalog(fields[:-1])
        self._wire_generation(fields)
        self._wire_reuse(fields)
        for task, tab in self._tab.items():
            chosen = partial(handlers.task_chosen, task)
            shown = [self._task, *(self._controls[name] for name in NOT_OF)]
            tab.select(chosen, None, shown, **PRIVATE)

    def _wire_catalog(self, fields: list[Any]) -> None:
        outputs = [self._title, self._key, self._timer, *fields]
        for event in (self.blocks.load, self._timer.tick):
            event(self._handlers.load, self._key, outputs, **PRIVATE)
        self._key.change(self._handlers.load, self._key, outputs, js=KEEP_KEY, **PRIVATE)
        self.blocks.load(None, None, self._settings, js=ROOM, **PRIVATE)

    def _wire_generation(self, fields: list[Any]) -> None:
        view = [self._stage, self._result, self._details, self._actions, self._chosen]
        gr.on(
            [self._generate.click, self._controls["prompt"].submit],
            self._handlers.generate,
            [self._task, self._picture, self._editor, self._key, self._shown, *fields],
            [self._job, self._generate, self._cancel, *view, self._shown, self._gallery],
            **PRIVATE,
        )
        self._cancel.click(self._handlers.cancel, [self._job, self._key], self._cancel, **PRIVATE)
        self._gallery.select(handlers.choose, self._shown, view, **PRIVATE)

    def _wire_reuse(self, fields: list[Any]) -> None:
        shown = [self._shown, self._chosen]
        filled = [self._task, self._tabs, *fields]
        model = self._controls["model"]
        self._again.click(handlers.recall_shown, [*shown, model], filled, **PRIVATE)
        self._file.upload(
            self._handlers.recall_file,
            [self._file, self._task, model, self._key],
            [self._file, *filled],
            **PRIVATE,
        )
        self._onward.click(
            handlers.go_on, shown, [self._task, self._tabs, self._picture], **PRIVATE
        )
        seed = self._controls["seed"]
        self._random.click(lambda: "", None, seed, **PRIVATE)
        self._reuse.click(handlers.seed_of, shown, seed, **PRIVATE)
