"""Bodies of OpenAI's image API to parameters.

Our own parameters may stand beside OpenAI's (the Python SDK's `extra_body`); whatever is neither is
refused by name. What OpenAI's models know and ours do not is accepted and does nothing, unless the
image would be another one than requested: then it is refused.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.http.validation import NullIsAbsent, validated
from runnables.errors import InvalidInput
from runnables.parameters import MAX_IMAGES, Inpaint, Parameters
from runnables.settings import Settings

#: names of OpenAI's own models: clients have them built in, and mean the model that is served
OPENAI_MODELS = ("gpt-image-", "chatgpt-image-", "dall-e-")


#: fields that are accepted, and do nothing here
WITHOUT_EFFECT = (
    "quality",
    "style",
    "moderation",
    "output_compression",
    "complexity",
    "input_fidelity",
)


class ImagesBody(NullIsAbsent):
    """The body of images.generate and images.edit; fields of our own are in model_extra."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str = Field("", max_length=200)
    n: int = Field(1, ge=1, le=MAX_IMAGES)
    size: str = Field("auto", pattern=r"^(auto|[1-9]\d{0,3}x[1-9]\d{0,3})$")
    response_format: Literal["url", "b64_json"] = "b64_json"
    output_format: Literal["png", "webp", "jpeg"] = "png"
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)
    background: Literal["opaque", "auto", "transparent"] = "auto"
    quality: Literal["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"] = "auto"
    # accepted, and without effect here
    style: Literal["vivid", "natural"] | None = None
    moderation: Literal["low", "auto"] | None = None
    output_compression: int | None = Field(None, ge=0, le=100)
    complexity: Literal["low", "medium", "high"] | None = None
    input_fidelity: Literal["low", "high"] | None = None
    user: str | None = Field(None, max_length=1000)
    safety_identifier: str | None = Field(None, max_length=1000)

    def ignored(self, settings: Settings) -> list[str]:
        """Return the fields that ask for something, and get nothing.

        Raises:
            InvalidInput: The operator wants transparency to be refused.
        """
        sent = {name: getattr(self, name) for name in WITHOUT_EFFECT}
        names = [name for name, value in sent.items() if value not in (None, "auto")]
        if self.background != "transparent":
            return names
        if settings.transparent == "refuse":
            raise InvalidInput("transparent backgrounds cannot be generated", loc=("background",))
        return ["background", *names]


def parameters(body: ImagesBody, model: type[Parameters]) -> Parameters:
    """Return the parameters that a body means.

    Raises:
        InvalidInput: One is wrong; OpenAI's name of the field is named where there is one.
    """
    native: dict[str, Any] = {**_defaults(model), **(body.model_extra or {})}
    native["num_images_per_prompt"] = body.n
    if body.model and not body.model.startswith(OPENAI_MODELS):
        native["model"] = body.model
    if body.size != "auto":
        native["width"], native["height"] = map(int, body.size.split("x"))
    return validated(model, native)


def _defaults(model: type[Parameters]) -> dict[str, Any]:
    """Return the defaults: OpenAI repaints what is transparent as if nothing had been there."""
    return {"strength": 1.0} if model is Inpaint else {}
