"""This is the seam between a batch and what requests add to a model, such as LoRA or ControlNet.

A loaded model has one object per extension that its family takes. The engine knows none of them: it
loops over those that a request asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn

from runnables.families.base import Conditioning, Family, Size
from runnables.families.text.prompts import TextAddition

if TYPE_CHECKING:
    from PIL.Image import Image

    from runnables.parameters import Parameters
    from runnables.settings import Settings

#: a denoiser call: (sample, timesteps, and what extensions pass on by name) -> output
Denoise = Callable[..., Tensor]


class RowState(Protocol):
    """This is what an extension sees of a row.

    Attributes:
        step: denoiser calls done in the current pass.
        steps: all calls of the current pass.
        guided: whether the next call runs an unconditional row, too.
        latents: (C, h, w) float32, the current sample.
        level: how much of the finished latents and of noise the current sample is made of.
        kept: what extensions remember of the row from call to call, by their own keys.
    """

    kept: dict[str, Any]

    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def guided(self) -> bool: ...
    @property
    def latents(self) -> Tensor: ...
    @property
    def level(self) -> tuple[float, float]: ...


@dataclass(frozen=True)
class Pass:
    """A pass is one run over the noise levels; a request has one, or two with a second pass.

    Attributes:
        parameters: of the request.
        size: (height, width) in pixels.
        steps: denoiser calls of the whole schedule, those of a refiner included.
        controls: the request's control images.
    """

    parameters: Parameters
    size: Size
    steps: int
    controls: Sequence[Image] = ()


@dataclass(frozen=True, eq=False)
class Stacked:
    """One call stacks R conditional rows, G unconditional ones, further ones, and then padding.

    Attributes:
        rows: R, guided ones first.
        guided: G; row R + i is the unconditional one of row i.
        order: of all U denoiser rows, the index among the R rows.
        further: for each extension with rows of its own, by its name, their numbers.
        conditioning: of the U denoiser rows.
    """

    family: Family
    rows: Sequence[RowState]
    guided: int
    order: Sequence[int]
    further: Mapping[str, Sequence[int]]
    conditioning: Conditioning


class Call:
    """This is an extension in one stacked batch; it serves until a row joins, leaves or changes."""

    def around(self, denoise: Denoise) -> Denoise:
        """Return a context that puts this extension into a denoiser call."""
        return denoise

    def guide(self, guided: Tensor, output: Tensor) -> Tensor:
        """Return the model output (R, C, h, w) after guidance, of the denoiser's (U, C, h, w)."""
        return guided


@dataclass(frozen=True)
class Context:
    """The context has what extensions are made with, beside their model.

    Attributes:
        adopt: brings a module to the accelerator.
        primary: the family of the model that SD_MODEL names.
    """

    settings: Settings
    adopt: Callable[[nn.Module], None] = lambda module: None
    primary: str = ""


class Extension:
    """An extension is what requests may add to one loaded model; by default it adds nothing.

    Attributes:
        name: the request's parameter that asks for it.
        splits: whether rows in which it acts cannot share a call with those in which it does not.
        mixes: whether its rows may share a call with those of other sizes and prompt lengths.
        adapts: whether it acts in the denoiser's layers, so that rows of several sizes need a
            canvas.
        family: the model.
    """

    name: ClassVar[str] = ""
    splits: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    adapts: ClassVar[bool] = False

    def __init__(self, family: Family, context: Context) -> None:
        self.family = family

    @classmethod
    def suits(cls, family: Family) -> bool:
        """Return whether this model takes the extension."""
        return cls.name in family.traits.features

    # -- any thread -------------------------------------------------------------------------

    def wanted(self, parameters: Parameters) -> bool:
        """Return whether a request asks for it: its parameter is not at its default."""
        field = type(parameters).model_fields.get(self.name)
        return field is not None and getattr(parameters, self.name) != field.default

    def check(self, parameters: Parameters) -> None:
        """Raise InvalidInput where the request cannot have it; load nothing."""

    def cost(self, parameters: Parameters) -> float:
        """Return what it adds to every denoiser row, as a fraction of the row."""
        return 0.0

    def beside(self, parameters: Parameters) -> float:
        """Return the memory that it needs during a call, as a fraction of a row's."""
        return 0.0

    def extra_rows(self, parameters: Parameters) -> float:
        """Return the denoiser rows that it adds to an image, on average over the steps."""
        return 0.0

    def load(self, parameters: Parameters) -> Any:
        """Return what the request names, read from disk where it has to be.

        Raises:
            InvalidInput: it is damaged, or for another model.
        """
        return None

    @property
    def nbytes(self) -> int:
        """Return the bytes on the device of what is loaded."""
        return 0

    # -- the engine's thread ----------------------------------------------------------------

    def text(self, loaded: Any) -> TextAddition | None:
        """Return what it adds to the encoding of the request's prompts."""
        return None

    def part(self, loaded: Any, run: Pass) -> Generator[None, None, Any]:
        """Return what rows carry through this pass; yield after each picture that is prepared."""
        yield from ()
        return loaded

    def acts(self, part: Any, row: RowState) -> Hashable:
        """Return what it does in the row's next call; a batch is stacked anew when this changes."""
        return None

    def rows(self, part: Any, row: RowState) -> int:
        """Return the number of denoiser rows that it adds to the row's next call."""
        return 0

    def load_of(self, part: Any, row: RowState) -> float:
        """Return what it adds to every denoiser row of the next call, as a fraction of the row."""
        return 0.0

    def stack(self, stacked: Stacked, parts: Sequence[Any]) -> Call | None:
        """Return its call for a batch; `parts` of the R rows are None where not requested."""
        return None

    def reviews(self, parameters: Parameters) -> bool:
        """Return whether it has an opinion on a request's finished pictures."""
        return False

    def review(self, parameters: Parameters, pictures: Sequence[Image]) -> list[bool]:
        """Return which finished pictures it objects to, where it `reviews` them."""
        return [False for _ in pictures]

    def preview(self, row: RowState, output: Tensor) -> Callable[[], Image] | None:
        """Return what makes the row's picture as it looks now, of the guided output (C, h, w).

        It may be called in another thread, while the row goes on.
        """
        return None


#: an extension and what a row carries for it
Active = tuple[Extension, Any]
