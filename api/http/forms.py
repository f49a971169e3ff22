"""HTTP bodies to parameters and images. Every error names its field."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message

from PIL.Image import Image
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api.http.decoding import decoded
from api.http.fetch import Fetcher
from api.http.validation import M, json_object, validated
from runnables.errors import InvalidInput, PayloadTooLarge
from runnables.images import codec
from runnables.parameters import AnyParameters, Inpaint, TextToImage
from runnables.settings import Settings
from runnables.ticket import NOTHING, Inputs

#: bytes of the `data` part; both prompts may have 32,000 characters, of up to 12 bytes each (an
#: escaped pair of surrogates)
MAX_DATA = 1024 * 1024
CONTROL = "control"  # the part of a control image, once for each of `controlnets`
MULTIPART = "multipart/form-data"


@dataclass(frozen=True)
class Form:
    """A request: its parameters and its images."""

    parameters: AnyParameters
    inputs: Inputs = NOTHING


async def read(request: Request, model: type[AnyParameters], settings: Settings) -> Form:
    """Read a request of this task.

    Raises:
        InvalidInput, UnsupportedImage, PayloadTooLarge: Something is wrong; the field is named.
    """
    if model is TextToImage and content_type(request) != MULTIPART:
        expect_json(request)
        return Form(parse(model, await request.body()))
    expect_multipart(request)
    return await _read_parts(request, model, settings)


def content_type(request: Request) -> str:
    """Return the content type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def expect_json(request: Request) -> None:
    """Raise InvalidInput for another content type."""
    kind = content_type(request)
    if kind not in ("application/json", ""):
        raise InvalidInput(
            f"content-type must be application/json, not {kind}", loc=("content-type",)
        )


def expect_multipart(request: Request) -> None:
    """Raise InvalidInput for another content type."""
    kind = content_type(request)
    if kind != MULTIPART:
        raise InvalidInput(
            f"content-type must be {MULTIPART}, not {kind or '-'}", loc=("content-type",)
        )


def files_of(model: type[AnyParameters]) -> tuple[str, ...]:
    """Return the names of the file parts that a task needs beside `data`."""
    if model is TextToImage:
        return ()
    return ("img", "mask") if model is Inpaint else ("img",)


def parse(model: type[M], body: bytes, field: str | None = None) -> M:
    """Return JSON as parameters. NaN and Infinity are refused: they are no JSON."""
    return validated(model, json_object(body, field), (field,) if field else ())


async def _read_parts(request: Request, model: type[AnyParameters], settings: Settings) -> Form:
    wanted = files_of(model)
    async with parts(request) as form:
        check_names(form, {*wanted, CONTROL, "data"})
        parameters = parse(model, await text(form.get("data")), "data")
        files = {name: await image(form.get(name), name, settings) for name in wanted}
        controls = await control_images(form, settings)
        return Form(parameters, Inputs(files.get("img"), files.get("mask"), controls))


@asynccontextmanager
async def parts(request: Request, fields: int = 8, files: int = 8) -> AsyncIterator[FormData]:
    """Yield the parts of a multipart body; the parser's errors become ours."""
    charset = _charset(request)
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise InvalidInput(f"charset must be utf-8, not {charset[:100]}", loc=("content-type",))
    try:
        async with request.form(max_files=files, max_fields=fields, max_part_size=MAX_DATA) as form:
            yield form
    except HTTPException as error:  # the parser's: not multipart at all, or a part too large
        if "exceeded maximum size" in str(error.detail):
            raise PayloadTooLarge(f"data: {error.detail}", loc=("data",)) from error
        raise InvalidInput(f"body: {error.detail}", loc=("body",)) from error


def _charset(request: Request) -> str:
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    return str(message.get_param("charset", "")).lower()


def check_names(form: FormData, wanted: set[str]) -> None:
    """Raise InvalidInput for a part that is unknown, or repeated and no control image."""
    names = [name for name, _ in form.multi_items()]
    for name in names:
        if name not in wanted:
            known = ", ".join(sorted(wanted))
            raise InvalidInput(f"there is no part {name!r}; known: {known}", loc=(name,))
        if names.count(name) > 1 and name != CONTROL:
            raise InvalidInput(f"{name} is sent more than once", loc=(name,))


async def text(part: UploadFile | str | None) -> bytes:
    """Return the `data` part."""
    if part is None:
        raise InvalidInput("data is missing: the parameters as JSON", loc=("data",))
    if isinstance(part, str):
        return part.encode()
    if (part.size or 0) > MAX_DATA:
        raise PayloadTooLarge(f"data is larger than {MAX_DATA} bytes", loc=("data",))
    return await part.read()


async def image(part: UploadFile | str | None, field: str, settings: Settings) -> Image:
    """Return a file part as an image: RGB, or grey where it is the mask."""
    data = await file_bytes(part, field, settings)
    if field == "mask":
        return await decoded(codec.decode_mask, data, max_pixels=settings.max_pixels)
    return await decoded(codec.decode, data, max_pixels=settings.max_pixels, field=field)


async def control_images(form: FormData, settings: Settings) -> tuple[Image, ...]:
    """Return the control images in their order, RGB."""
    return tuple([await image(part, CONTROL, settings) for part in form.getlist(CONTROL)])


async def file_bytes(part: UploadFile | str | None, field: str, settings: Settings) -> bytes:
    """Return a file part's content; a text part is the URL of one, where the operator allows it."""
    if part is None:
        raise InvalidInput(f"{field} is missing: an image file", loc=(field,))
    if isinstance(part, UploadFile):
        return await part.read()
    if settings.fetch_hosts:
        return await Fetcher(settings).get(part, field)
    raise InvalidInput(
        f"{field} must be a file part, as curl -F {field}=@image.png sends it", loc=(field,)
    )
