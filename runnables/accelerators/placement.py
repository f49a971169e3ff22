"""The memory planner decides which components of a model stay on the device, and says why.

What does not fit stays in main memory, and its layers are brought to the device one after the other
when they are needed: first the text encoders, whose calls are few and encode many prompts, then the
VAE, and the denoiser as the last resort, as every step then waits for all of its weights. This
module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runnables.errors import ConfigurationError

GIB = 2**30
#: bytes per weight
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
#: share of a streamed component that is on the device at a time: the layer that runs, and the next
LAYERS = 1 / 12
#: values per pixel that decoding an image holds at its peak: about ten maps of 128 channels
DECODING = 1280
DENOISERS = ("unet", "transformer")
KEPT_BACK = 0.9  # the device's share that is planned with; the rest is the driver's, and fragments


@dataclass(frozen=True)
class Placement:
    """A placement is a plan for one model on one device.

    Attributes:
        streamed: components that stay in main memory.
        need: bytes that it takes on the device, at work.
        whole: bytes that everything on the device would take.
        room: bytes that it may take there.
    """

    streamed: tuple[str, ...]
    need: float
    whole: float
    room: float

    def __str__(self) -> str:
        """Say in a sentence what was decided, and why."""
        if not self.streamed:
            return f"all on the device: {_gib(self.need)} of {_gib(self.room)} GiB"
        slow = next((name for name in self.streamed if name in DENOISERS), None)
        hint = f"; slow, SD_QUANTIZE={slow}:int8 may do without" if slow else ""
        return (
            f"{', '.join(self.streamed)} in main memory, on the device by layers: all on it "
            f"needs {_gib(self.whole)} of {_gib(self.room)} GiB, this way {_gib(self.need)}{hint}"
        )


def place(parts: Mapping[str, float], working: float, free: float) -> Placement:
    """Return the first placement that fits.

    Args:
        parts: component -> bytes of its weights.
        working: bytes that calls hold beside the weights.
        free: bytes that are free on the device.

    Raises:
        ConfigurationError: nothing fits, with the GiB that are missing.
    """
    room = KEPT_BACK * free
    placements = [_placement(parts, steps, working, room) for steps in _steps(parts)]
    fitting = (one for one in placements if one.need <= room)
    if found := next(fitting, None):
        return found
    least = placements[-1].need
    raise ConfigurationError(
        f"the model does not fit: even by layers it needs {_gib(least)} GiB, "
        f"{_gib(least - room)} GiB more than this device has for it",
        loc=("SD_MODEL",),
    )


def working_bytes(height: int, width: int, bytes_per_value: float) -> float:
    """Return an estimate of what calls hold at their peak, for an image of this size."""
    return height * width * DECODING * bytes_per_value


def _steps(parts: Mapping[str, float]) -> list[tuple[str, ...]]:
    texts = tuple(name for name in parts if name.startswith("text_encoder"))
    vae = tuple(name for name in parts if name in ("vae", "safety_checker"))
    rest = tuple(name for name in parts if name not in texts + vae)
    return [(), texts, texts + vae, rest, rest + texts, rest + texts + vae]


def _placement(
    parts: Mapping[str, float], streamed: tuple[str, ...], working: float, room: float
) -> Placement:
    whole = sum(parts.values()) + working
    layers = max((LAYERS * parts[name] for name in streamed), default=0.0)
    resident = sum(size for name, size in parts.items() if name not in streamed)
    return Placement(streamed, resident + layers + working, whole, room)


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"
