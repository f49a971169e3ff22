"""Both request forms of the queue, and what they become.

`v1alpha2` is `{"task": {"metadata": {...}, "content": {...}}}`; `v1alpha1` is a flat WebUI body
with `alwayson_scripts` beside it. Either ends as a `Task`, whose content is in the WebUI's names
and whose `parameters` are ours. Imports no torch: the front door runs on AWS Lambda.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.http.validation import check_values, json_object, validated
from api.webui import controlnet
from hosts.queue.webui import Content, Enlarged, Generated
from runnables.errors import InvalidInput, Loc
from runnables.parameters import MAX_IMAGES, MAX_SEED, AnyParameters, Parameters
from runnables.parameters import Task as Kind
from runnables.samplers.names import Prediction

LEGACY = "legacy"  # the runtime of v1alpha1 tasks, which are routed by their model's name
MAX_BYTES = 256 * 1024  # SNS refuses more


Form = Literal["v1alpha1", "v1alpha2"]
TaskType = Literal[
    "text-to-image", "image-to-image", "inpaint", "extra-single-image", "extra-batch-image"
]
KINDS: Mapping[TaskType, Kind] = {
    "text-to-image": "txt2img",
    "image-to-image": "img2img",
    "inpaint": "inpaint",
    "extra-single-image": "upscale",
    "extra-batch-image": "upscale",
}
REFUSED: Mapping[str, str] = {"pipeline": "ComfyUI graphs are not run here"}
#: names in v1alpha2's `alwayson_scripts` that are no scripts
OWN = ("sd_model_checkpoint", "image_link")
#: where the content's fields lie in a request
CONTENT: Mapping[Form, Loc] = {"v1alpha1": (), "v1alpha2": ("task", "content")}

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
#: `.safetensors` files and Hub ids
ModelName = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127})?$"
    ),
]
#: folders in the bucket; none of them begins with a dot
Prefix = Annotated[
    str,
    StringConstraints(
        pattern=r"^$|^[A-Za-z0-9_=-][A-Za-z0-9._=-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*/?$",
        max_length=700,  # with ids and digest it stays below the 1,024 bytes of S3's keys
    ),
]


class Metadata(BaseModel):
    """Who asks for what, and where it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Name
    runtime: Name
    tasktype: TaskType
    prefix: Prefix = ""
    context: dict[str, Any] | str | None = Field(None, description="Echoed on completion.")


class Scripts(BaseModel):
    """v1alpha1's `alwayson_scripts`; what else is there are the WebUI's own."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    task: TaskType
    sd_model_checkpoint: ModelName
    id_task: Name
    uid: str | None = None
    save_dir: Prefix = ""
    image_link: str | None = None
    sd_vae: Literal["", "Automatic", "None", None] = None
    override_settings: dict[str, Any] = Field(default_factory=dict)


class Task(BaseModel):
    """One task, whatever form it came in.

    Attributes:
        model: the model it names; None: whatever its runtime serves.
        content: in the WebUI's names, checked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Form
    metadata: Metadata
    content: Generated | Enlarged
    model: str | None = None

    @property
    def digest(self) -> str:
        """12 hex digits of what decides the result: the same task always has the same."""
        decides = [
            self.metadata.model_dump(exclude={"context"}),
            self.content.model_dump(mode="json", exclude_defaults=True),
            self.model,
        ]
        text = json.dumps(decides, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def kind(self) -> Kind:
        """Our name of the task type. As in the WebUI, a mask makes it inpainting."""
        kind = KINDS[self.metadata.tasktype]
        return "inpaint" if kind == "img2img" and self.content.mask else kind

    def parameters(
        self, embeddings: Sequence[str] = (), *, prediction: Prediction = "epsilon"
    ) -> AnyParameters:
        """Return our parameters.

        Without a seed it follows from the task, so that a second delivery generates the same image.

        Args:
            embeddings: names of textual inversions that there are.
            prediction: the kind of model that generates it, where that is known.

        Raises:
            InvalidInput: naming the field as the caller wrote it.
        """
        try:
            parameters = self.content.parameters(self.kind, embeddings, {"prediction": prediction})
        except InvalidInput as error:
            raise error.below(CONTENT[self.form]) from error.__cause__
        if not isinstance(parameters, Parameters) or parameters.seed is not None:
            return parameters
        return parameters.model_copy(update={"seed": int(self.digest, 16) % (MAX_SEED - 8)})

    def message(self) -> str:
        """Return the published form, `{"metadata", "content"}`, which is the reference system's."""
        content = self.content.model_dump(mode="json", exclude_unset=True)
        if self.model:
            named = {"sd_model_checkpoint": self.model}
            content["alwayson_scripts"] = {**content.get("alwayson_scripts", {}), **named}
        metadata = self.metadata.model_dump(mode="json", exclude_none=True)
        return json.dumps({"metadata": metadata, "content": content})


def read(body: Mapping[str, Any]) -> Task:
    """A request at the front door, in either form.

    Raises:
        InvalidInput: naming the field.
    """
    return from_v1alpha2(body) if "task" in body else from_v1alpha1(body)


def from_v1alpha2(body: Mapping[str, Any]) -> Task:
    """`{"task": {"metadata", "content"}}`."""
    task = body.get("task")
    if set(body) != {"task"} or not isinstance(task, dict):
        raise InvalidInput("the body must be an object with the one field task", loc=("task",))
    _refuse_unknown(task, {"metadata", "content"}, ("task",))
    return _task(task.get("metadata"), task.get("content"), ("task",))


def from_v1alpha1(body: Mapping[str, Any]) -> Task:
    """A flat WebUI body with `alwayson_scripts`."""
    sent = body.get("alwayson_scripts")
    _refuse_type(sent.get("task") if isinstance(sent, dict) else None, "alwayson_scripts", "task")
    scripts = validated(Scripts, sent, ("alwayson_scripts",))
    content = {**body, "alwayson_scripts": scripts.model_extra}
    if scripts.image_link:
        content["image_link"] = scripts.image_link
    if scripts.override_settings:
        content.setdefault("override_settings", scripts.override_settings)
    metadata = Metadata(
        id=scripts.id_task,
        runtime=LEGACY,
        tasktype=scripts.task,
        prefix=scripts.save_dir.rstrip("/"),
        context={"uid": scripts.uid} if scripts.uid else None,
    )
    return _checked(
        Task(
            form="v1alpha1",
            metadata=metadata,
            content=_content(scripts.task, content, CONTENT["v1alpha1"]),
            model=scripts.sd_model_checkpoint,
        )
    )


def from_queue(text: str) -> Task:
    """A queue message's body: `{"metadata", "content"}`, bare or in SNS's envelope.

    Raises:
        InvalidInput: naming the field.
    """
    body = parse_object(text)
    if body.get("Type") == "Notification" and isinstance(body.get("Message"), str):
        body = parse_object(body["Message"])
    _refuse_unknown(body, {"metadata", "content"}, ())
    content = body.get("content")
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and metadata.get("runtime") == LEGACY:
        return _from_legacy_message(metadata, content)
    return _task(metadata, content, ())


def _from_legacy_message(metadata: dict[str, Any], content: Any) -> Task:
    """The form in which a v1alpha1 task was published, by us or by the reference system."""
    if not isinstance(content, dict) or not isinstance(content.get("alwayson_scripts"), dict):
        raise InvalidInput("a legacy task names its model", loc=("content", "alwayson_scripts"))
    named = {"id": "id_task", "tasktype": "task", "prefix": "save_dir"}
    scripts = {new: metadata[old] for old, new in named.items() if old in metadata}
    context = metadata.get("context")
    if isinstance(context, dict) and isinstance(context.get("uid"), str):
        scripts["uid"] = context["uid"]
    return from_v1alpha1(
        {**content, "alwayson_scripts": {**content["alwayson_scripts"], **scripts}}
    )


def _task(metadata: Any, content: Any, loc: Loc) -> Task:
    if isinstance(metadata, dict):
        _refuse_type(metadata.get("tasktype"), *loc, "metadata", "tasktype")
    if not isinstance(content, dict):
        raise InvalidInput("content must be an object", loc=(*loc, "content"))
    where = (*loc, "content", "alwayson_scripts")
    scripts = content.get("alwayson_scripts") or {}
    if not isinstance(scripts, dict):
        raise InvalidInput("alwayson_scripts must be an object", loc=where)
    theirs = {name: value for name, value in scripts.items() if name not in OWN}
    content = {"image_link": scripts.get("image_link"), **content, "alwayson_scripts": theirs}
    parsed_metadata = validated(Metadata, metadata, (*loc, "metadata"))
    parsed = _content(parsed_metadata.tasktype, content, (*loc, "content"))
    model = scripts.get("sd_model_checkpoint") or parsed.model_override
    return _checked(
        validated(
            Task,
            {"form": "v1alpha2", "metadata": parsed_metadata, "content": parsed, "model": model},
            where,
        )
    )


def _content(tasktype: TaskType, sent: dict[str, Any], loc: Loc) -> Content:
    if not sent.get("alwayson_scripts"):
        sent = {name: value for name, value in sent.items() if name != "alwayson_scripts"}
    return validated(Enlarged if KINDS[tasktype] == "upscale" else Generated, sent, loc)


def _checked(task: Task) -> Task:
    """Refuse what no worker could work on: wrong parameters, no input image."""
    task.parameters()
    content, where = task.content, CONTENT[task.form]
    _check_links(task, len(content.links()))
    if bool(content.mask) != (task.kind == "inpaint"):
        raise InvalidInput("a mask is for inpaint, which needs one", loc=(*where, "mask"))
    if task.kind == "txt2img" and not all(unit.source() for unit in content.units):
        raise InvalidInput("a ControlNet unit needs an image", loc=(*where, *controlnet.LOC))
    return task


def _check_links(task: Task, count: int) -> None:
    tasktype, loc = task.metadata.tasktype, (*CONTENT[task.form], task.content.links_field)
    if task.kind == "txt2img" and count:
        raise InvalidInput(f"{tasktype} takes no input image", loc=loc)
    most = MAX_IMAGES if tasktype == "extra-batch-image" else 1
    allowed = f"1 to {most} input images" if most > 1 else "one input image"
    if task.kind != "txt2img" and not 1 <= count <= most:
        raise InvalidInput(f"{tasktype} takes {allowed}, not {count}", loc=loc)


def parse_object(text: str) -> dict[str, Any]:
    """JSON text that must be an object.

    Raises:
        InvalidInput: it is not.
    """
    value = json_object(text.encode("utf-8", "surrogatepass"))
    check_values(value)
    return value


def _refuse_unknown(value: Mapping[str, Any], known: set[str], loc: tuple[str, ...]) -> None:
    for name in value:
        if name not in known:
            raise InvalidInput(f"{name} is not a field here", loc=(*loc, name))


def _refuse_type(tasktype: object, *loc: str | int) -> None:
    if isinstance(tasktype, str) and tasktype in REFUSED:
        raise InvalidInput(f"{tasktype}: {REFUSED[tasktype]}", loc=loc)
