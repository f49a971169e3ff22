"""images.edit: an image, and a mask whose transparent part is redrawn."""

from __future__ import annotations

from typing import Any

from PIL.Image import Image
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from api.http import forms
from api.http.forms import Form
from api.http.validation import validated
from api.openai import translate
from api.openai.translate import Asked
from runnables.errors import InvalidInput
from runnables.images import codec
from runnables.parameters import ImageToImage, Inpaint
from runnables.settings import Settings

IMAGE = ("image", "image[]")  # the SDK calls it so where it is given a list


async def read(request: Request, settings: Settings) -> tuple[Asked, Form]:
    """A multipart edit.

    Without a mask the image's own transparency is one; without either, the whole is redrawn.

    Raises:
        InvalidInput, UnsupportedImage, PayloadTooLarge: naming the field.
    """
    forms.expect_multipart(request)
    async with forms.parts(request, fields=32) as form:
        asked = validated(Asked, _fields(form))
        pixels, own = await _upload(_only_image(form), "image", settings)
        alpha = own
        if form.get("mask") is not None:
            _, alpha = await _upload(form.get("mask"), "mask", settings)
            if alpha is None:
                raise InvalidInput(
                    "mask has no transparency: what is transparent is redrawn", loc=("mask",)
                )
        if alpha is None:
            return asked, Form(translate.parameters(asked, ImageToImage), pixels)
        if alpha.size != pixels.size:
            raise InvalidInput("mask must have the size of image", loc=("mask",))
        return asked, Form(translate.parameters(asked, Inpaint), pixels, alpha)


def _fields(form: FormData) -> dict[str, Any]:
    """All parts that are neither image nor mask, none of them twice."""
    items = [(name, part) for name, part in form.multi_items() if name not in (*IMAGE, "mask")]
    for name, part in items:
        if isinstance(part, UploadFile):
            raise InvalidInput(f"{name} is not available", loc=(name,))
    return dict(items)


def _only_image(form: FormData) -> UploadFile | str | None:
    given = [part for name, part in form.multi_items() if name in IMAGE]
    if len(given) > 1:
        raise InvalidInput("one image can be edited at a time", loc=("image",))
    return given[0] if given else None


async def _upload(
    part: UploadFile | str | None, field: str, settings: Settings
) -> tuple[Image, Image | None]:
    """The image, and what is transparent in it."""
    data = await forms.file_bytes(part, field, settings)
    limit = settings.max_pixels
    pixels = await run_in_threadpool(codec.decode, data, max_pixels=limit, field=field)
    alpha = await run_in_threadpool(codec.decode_transparency, data, max_pixels=limit, field=field)
    return pixels, alpha if alpha is not None and alpha.getextrema() != (0, 0) else None
