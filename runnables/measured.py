"""What a warm-up has measured and compiled is kept for the next start on the same device."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runnables.accelerators.base import Accelerator
from runnables.accelerators.cpu.threads import usable_cores
from runnables.version import versions

if TYPE_CHECKING:
    from runnables.engine.loaded_model import LoadedModel

logger = logging.getLogger(__name__)

#: the settings that change how long a step takes, or what it holds
SETTINGS = {"compile", "cuda_graphs_mb", "max_batch", "quantize", "t5", "threads"}

CACHE = "TORCHINDUCTOR_CACHE_DIR"


class Measured(BaseModel):
    """The measured figures of a model on a device.

    Attributes:
        overhead, rate, decode_seconds: as `CostModel`, in seconds.
        row_bytes, decode_bytes: as `MemoryModel`, in bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    overhead: float = Field(ge=0)
    rate: float = Field(gt=0)
    decode_seconds: float = Field(gt=0)
    row_bytes: float = Field(ge=0)
    decode_bytes: float = Field(ge=0)

    @classmethod
    def of(cls, model: LoadedModel) -> Measured:
        """Return what is known of a model now, learnt from its steps since."""
        cost, memory = model.cost, model.memory
        return cls(
            overhead=cost.overhead,
            rate=cost.rate,
            decode_seconds=cost.decode_rate,
            row_bytes=memory.row_rate,
            decode_bytes=memory.decode_rate,
        )

    def tell(self, model: LoadedModel) -> None:
        """Give a model these figures."""
        cost, memory = model.cost, model.memory
        cost.overhead, cost.rate, cost.decode_rate = self.overhead, self.rate, self.decode_seconds
        memory.row_rate, memory.decode_rate = self.row_bytes, self.decode_bytes


class Kept:
    """The folder of what was measured; without one nothing is kept.

    A file that cannot be read or written is the same as none: then the warm-up measures.
    """

    def __init__(self, folder: str, accelerator: Accelerator) -> None:
        self._folder = Path(folder).expanduser() if folder else None
        self._accelerator = accelerator

    def read(self, model: LoadedModel) -> Measured | None:
        """Return what an earlier start has measured, if anything."""
        path = self._path(model)
        try:
            return Measured.model_validate_json(path.read_bytes()) if path else None
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            logger.warning("%s is not used: %s", path, error)
            return None

    def write(self, model: LoadedModel) -> None:
        """Keep what was measured, in place of what an earlier start has."""
        if (path := self._path(model)) is None:
            return
        new = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(Measured.of(model).model_dump_json())
            new.replace(path)
        except (OSError, ValidationError) as error:
            logger.warning("what was measured is not kept in %s: %s", path, error)

    def keep_compiled(self) -> None:
        """Have PyTorch keep in the folder what it compiles, so that another start compiles nothing.

        An operator's own TORCHINDUCTOR_CACHE_DIR comes first. Code for another device or of other
        versions lies elsewhere, because a CPU's is made of the instructions that it has.
        """
        if self._folder is None or self._accelerator.settings.compile == "off":
            return
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        if os.environ.get(CACHE, own := default_cache_dir()) != own:  # PyTorch may have set its own
            return
        same = {"device": _name(self._accelerator.device), "versions": versions()}
        folder = self._folder / f"compiled-{_digest(same)}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # PyTorch writes its locks where it reads
                pass
        except OSError as error:
            logger.warning("what is compiled is not kept in %s: %s", folder, error)
        else:
            os.environ[CACHE] = str(folder.resolve())

    def _path(self, model: LoadedModel) -> Path | None:
        """Return the file of this model, device, number format, software and settings."""
        if self._folder is None:
            return None
        accelerator, families = self._accelerator, filter(None, (model.base, model.refiner))
        same = {
            "device": _name(accelerator.device),
            "dtype": str(model.base.dtype),
            "versions": versions(),
            "settings": accelerator.settings.model_dump(include=SETTINGS, mode="json"),
            "models": [[one.traits.family, one.checkpoint.sizes] for one in families],
            "native": model.base.traits.native_size,
        }
        return self._folder / f"{model.name}-{_digest(same)}.json"


def _digest(same: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]


def _name(device: torch.device) -> str:
    """Return the name of the hardware; of a CPU with the cores that this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{device.type} {platform.machine()} {capability} {processor()} {usable_cores()}"


def processor() -> str:
    """Return the processor's model, as Linux names it; elsewhere what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
