"""The bodies of images.edit and images.create_variation.

An edit has an image, and may have a mask whose transparent part is repainted.
"""

from __future__ import annotations

from typing import Any

from PIL.Image import Image
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from api.http import forms
from api.http.decoding import decoded
from api.http.forms import Form
from api.http.validation import validated
from api.openai import translate
from api.openai.translate import ImagesBody
from runnables.errors import InvalidInput
from runnables.images import codec
from runnables.parameters import ImageToImage, Inpaint
from runnables.settings import Settings
from runnables.ticket import Inputs

IMAGE = ("image", "image[]")  # the SDK names it so where it has a list
MAX_FILES = 17  # OpenAI takes 16 images and a mask: more than one image is refused by its name
#: a variation has no prompt; parameters must have one
NO_PROMPT = " "


async def read(request: Request, settings: Settings) -> tuple[ImagesBody, Form]:
    """Read a multipart edit.

    Without a mask the image's own transparency is the mask; without either, the whole image is
    changed.

    Raises:
        InvalidInput, UnsupportedImage, PayloadTooLarge: Something is wrong; the field is named.
    """
    forms.expect_multipart(request)
    async with forms.parts(request, fields=32, files=MAX_FILES) as form:
        body = validated(ImagesBody, _fields(form))
        pixels, own = await _upload(_only_image(form), "image", settings)
        alpha = own
        if form.get("mask") is not None:
            _, alpha = await _upload(form.get("mask"), "mask", settings)
            if alpha is None:
                raise InvalidInput(
                    "mask has no transparency: what is transparent is repainted", loc=("mask",)
                )
        if alpha is None:
            return body, Form(translate.parameters(body, ImageToImage), Inputs(pixels))
        if alpha.size != pixels.size:
            raise InvalidInput("mask must have the size of image", loc=("mask",))
        return body, Form(translate.parameters(body, Inpaint), Inputs(pixels, alpha))


async def read_variation(request: Request, settings: Settings) -> tuple[ImagesBody, Form]:
    """Read a variation: the image, generated again without a prompt. Raise as `read`."""
    forms.expect_multipart(request)
    async with forms.parts(request, fields=32, files=MAX_FILES) as form:
        body = validated(ImagesBody, {"prompt": NO_PROMPT, **_fields(form)})
        pixels, _ = await _upload(_only_image(form), "image", settings)
        return body, Form(translate.parameters(body, ImageToImage), Inputs(pixels))


def _fields(form: FormData) -> dict[str, Any]:
    """Return all parts that are neither image nor mask."""
    items = [(name, part) for name, part in form.multi_items() if name not in (*IMAGE, "mask")]
    for name, part in items:
        if isinstance(part, UploadFile):
            raise InvalidInput(f"{name} is not available", loc=(name,))
    return dict(items)


def _only_image(form: FormData) -> UploadFile | str | None:
    images = [part for name, part in form.multi_items() if name in IMAGE]
    if len(images) > 1:
        raise InvalidInput(
            f"image: {len(images)} were sent, and the models here edit one image at a time",
            loc=("image",),
        )
    return images[0] if images else None


async def _upload(
    part: UploadFile | str | None, field: str, settings: Settings
) -> tuple[Image, Image | None]:
    """Return the image, and what is transparent in it."""
    data = await forms.file_bytes(part, field, settings)
    limit = settings.max_pixels
    pixels = await decoded(codec.decode, data, max_pixels=limit, field=field)
    alpha = await decoded(codec.decode_transparency, data, max_pixels=limit, field=field)
    return pixels, alpha if alpha is not None and alpha.getextrema() != (0, 0) else None
