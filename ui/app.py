"""The page as an ASGI application."""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI

from ui.client import Service
from ui.guard import Guard
from ui.page import STYLE, Page, theme


def build(
    service: Service,
    app: FastAPI | None = None,
    *,
    max_upload_mb: float = 25.0,
    max_pixels: int = 2048 * 2048,
) -> FastAPI:
    """Mount Gradio at `/`, after the routes of `app`; the caller runs its lifespan.

    Args:
        max_upload_mb: The size of the largest file that a visitor may upload.
        max_pixels: The most pixels of a picture.
    """
    mounted: FastAPI = gr.mount_gradio_app(
        app or FastAPI(openapi_url=None, docs_url=None, redoc_url=None),
        Page(service).blocks,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=round(max_upload_mb * 1e6),
        ssr_mode=False,
        theme=theme(),
        css_paths=[STYLE],
        enable_monitoring=False,
    )
    max_bytes = round(max_upload_mb * 1e6)
    mounted.add_middleware(Guard, service=service, max_bytes=max_bytes, max_pixels=max_pixels)
    return mounted
