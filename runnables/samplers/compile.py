"""A sampler's coefficients are read off diffusers' own scheduler.

A scheduler is linear in the sample, the model output and the noise; what it remembers between steps
are tensors in its attributes. So before each step the sample, every remembered tensor and the model
output are replaced by unit vectors, the real `step` is run, and what comes out is its matrix.
No sampler is implemented a second time, so all give the results of diffusers'.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from runnables.errors import InvalidInput
from runnables.samplers.names import Sampler, prediction_of
from runnables.samplers.scheduler import make_scheduler
from runnables.samplers.table import SamplerTable

WIDTH = 24  # coordinates: slots, model output, and spare ones in which only noise appears
RESIDUE = 1e-6  # what float32 arithmetic leaves of a weight that is zero
Path = tuple[str, int | None]  # an attribute, or an element of a list in one


def compile_table(
    sampler: Sampler,
    scheduler_config: Mapping[str, Any],
    num_inference_steps: int,
    *,
    strength: float | None = None,
    pure_noise: bool = False,
    denoising_end: float | None = None,
    denoising_start: float | None = None,
    mu: float | None = None,
    sigmas: tuple[float, ...] | None = None,
) -> SamplerTable:
    """Return the table of a sampler, which is cached.

    Args:
        scheduler_config: of the model, with `_class_name`.
        num_inference_steps: as users count; second-order samplers call the model more often.
        strength: for image to image, the share of the steps that is run; None starts from noise.
        pure_noise: nothing of the image shows in the start (inpainting at strength 1).
        denoising_end, denoising_start: the share of noise levels an SDXL base or refiner covers.
        mu: the shift of a model whose noise levels depend on the image's size; other models
            ignore it.
        sigmas: the noise levels that the model's pipeline sets itself, one per step. Multistep
            samplers ignore them, as they do in diffusers' pipelines.

    Raises:
        InvalidInput: the sampler does not fit the model, or the strength leaves no step to run.
        ValueError: the scheduler cannot run so few or so many steps.
    """
    config = json.dumps(dict(scheduler_config), sort_keys=True, default=str)
    cut = _Cut(strength, denoising_end, denoising_start)
    levels = _Levels(mu if scheduler_config.get("use_dynamic_shifting") else None, sigmas)
    return _compile(sampler, config, num_inference_steps, cut, pure_noise, levels)


class _Cut(NamedTuple):
    """A cut says which part of the noise levels is run."""

    strength: float | None
    denoising_end: float | None
    denoising_start: float | None


class _Levels(NamedTuple):
    """The caller passes these for the noise levels themselves."""

    mu: float | None
    sigmas: tuple[float, ...] | None


@lru_cache(maxsize=512)
def _compile(
    sampler: Sampler,
    config: str,
    steps: int,
    cut: _Cut,
    pure_noise: bool,
    levels: _Levels,
) -> SamplerTable:
    scheduler = copy.deepcopy(_fresh(sampler, config))
    _set_timesteps(scheduler, sampler, steps, levels)
    first, timesteps = _run_part(scheduler, steps, cut)
    if not len(timesteps):
        raise ValueError("no step is left to run")
    if hasattr(scheduler, "set_begin_index"):  # else it looks for the second of equal timesteps
        scheduler.set_begin_index(first)
    start = _start(scheduler, timesteps, cut, pure_noise)
    recorder = _Recorder(scheduler, timesteps)
    for call in range(len(timesteps)):
        recorder.record(call)
    return SamplerTable(
        timesteps=timesteps.to(torch.float32),
        input_scale=torch.tensor(recorder.input_scale, dtype=torch.float32),
        coefficients=_compact(recorder.matrices),
        draws_noise=tuple(recorder.draws_noise),
        start=start,
        renoise=torch.tensor(recorder.renoise, dtype=torch.float32),
    )


@lru_cache(maxsize=64)
def _fresh(sampler: Sampler, config: str) -> Any:
    """Return an unused scheduler: making one can take longer (DPM2: 0.5 s) than running it."""
    scheduler = make_scheduler(sampler, json.loads(config))
    if "timestep_scaling" in scheduler.config:  # a plain number would bring in the default dtype,
        scaling = float(scheduler.config.timestep_scaling)  # which models being loaded change
        scheduler.register_to_config(timestep_scaling=torch.tensor(scaling, dtype=torch.float64))
    return scheduler


def _set_timesteps(scheduler: Any, sampler: Sampler, steps: int, levels: _Levels) -> None:
    """Set the noise levels as diffusers' pipelines do."""
    passed: dict[str, Any] = {}
    if levels.mu is not None:
        passed["mu"] = levels.mu
    if levels.sigmas is not None and not scheduler.config.get("use_flow_sigmas"):
        passed["sigmas"] = list(levels.sigmas)
    accepted = inspect.signature(scheduler.set_timesteps).parameters
    if refused := [name for name in passed if name not in accepted]:
        raise InvalidInput(
            f"{sampler} does not fit this model: its noise levels are set by {refused[0]}, which "
            f"{type(scheduler).__name__} does not take",
            loc=("scheduler",),
        )
    if "sigmas" not in passed:
        passed["num_inference_steps"] = steps
    scheduler.set_timesteps(**passed)


def _run_part(scheduler: Any, steps: int, cut: _Cut) -> tuple[int, Tensor]:
    """Return the first timestep's index and the timesteps that are run, as diffusers cuts them."""
    timesteps: Tensor = scheduler.timesteps
    order, levels = scheduler.order, scheduler.config.num_train_timesteps
    first, last = 0, len(timesteps)
    if cut.strength is not None:
        first = _skipped(scheduler, steps, cut.strength) * order
    if cut.denoising_start is not None:
        run = int((timesteps < round(levels - cut.denoising_start * levels)).sum())
        run += order == 2 and run % 2 == 0  # never between the two halves of a step
        first = last - run
    if cut.denoising_end is not None:
        last = int((timesteps >= round(levels - cut.denoising_end * levels)).sum())
    return first, timesteps[first:last]


def _skipped(scheduler: Any, steps: int, strength: float) -> int:
    """Return the steps that image to image leaves out.

    Flow matching's pipelines round these down; the others round down those that are run.
    """
    if prediction_of({**scheduler.config, "_class_name": type(scheduler).__name__}) == "flow":
        skipped = int(max(steps - min(steps * strength, steps), 0))
    else:
        skipped = max(steps - min(int(steps * strength), steps), 0)
    if skipped == steps:
        raise InvalidInput(
            f"strength {strength} of {steps} steps leaves none to run; raise strength or "
            "num_inference_steps",
            loc=("strength",),
        )
    return skipped


def _start(scheduler: Any, timesteps: Tensor, cut: _Cut, pure_noise: bool) -> tuple[float, float]:
    if cut.denoising_start is not None:
        return 1.0, 0.0  # the base model's latents, as they are
    if cut.strength is None or pure_noise:
        return 0.0, float(getattr(scheduler, "init_noise_sigma", 1.0))
    return _noised(scheduler, timesteps[:1])


def _noised(scheduler: Any, timestep: Tensor) -> tuple[float, float]:
    """Return the weights of the original and of the noise at a timestep."""
    if hasattr(scheduler, "scale_noise"):  # the classes that only flow matching has
        mixed = scheduler.scale_noise(_unit(0), timestep, _unit(1)).flatten()
    else:
        mixed = scheduler.add_noise(_unit(0), _unit(1), timestep).flatten()
    return float(mixed[0]), float(mixed[1])


class _Recorder:
    """A recorder runs a scheduler step by step on unit vectors.

    Attributes:
        matrices: per call (slots after, slots before + 2), float64.
    """

    def __init__(self, scheduler: Any, timesteps: Tensor) -> None:
        self._scheduler = scheduler
        self._timesteps = timesteps
        self._slots: list[Path] = []
        self._generator = torch.Generator().manual_seed(0)
        arguments = {
            "generator": self._generator,
            "eta": 0.0,
        }  # as diffusers' pipelines call `step`
        accepted = inspect.signature(scheduler.step).parameters
        self._options = {name: value for name, value in arguments.items() if name in accepted}
        self.matrices: list[Tensor] = []
        self.input_scale: list[float] = []
        self.draws_noise: list[bool] = []
        self.renoise: list[tuple[float, float]] = []

    def record(self, call: int) -> None:
        scheduler, timestep = self._scheduler, self._timesteps[call]
        for index, path in enumerate(self._slots, start=1):
            _write(scheduler, path, _unit(index))
        before = 1 + len(self._slots)
        sample, output = _unit(0), _unit(before)
        self.input_scale.append(_input_scale(scheduler, sample, timestep))
        state = self._generator.get_state()
        after = scheduler.step(output, timestep, sample, return_dict=False, **self._options)[0]
        self.draws_noise.append(not torch.equal(state, self._generator.get_state()))
        self._slots = list(_remembered(scheduler))
        results = [after, *(_read(scheduler, path) for path in self._slots)]
        noise = (
            self._noise(state, output)
            if self.draws_noise[-1]
            else torch.zeros(WIDTH, dtype=torch.float32)
        )
        self.matrices.append(
            torch.stack([_coordinates(vector, before + 1, noise) for vector in results])
        )
        last = call + 1 == len(self._timesteps)
        next_step = self._timesteps[call + 1 : call + 2]
        self.renoise.append((1.0, 0.0) if last else _noised(scheduler, next_step))

    def _noise(self, state: Tensor, like: Tensor) -> Tensor:
        """Return the noise that the step has just drawn, by drawing it once more."""
        generator = torch.Generator()
        generator.set_state(state)
        return torch.randn(like.shape, generator=generator, dtype=like.dtype).flatten()


def _input_scale(scheduler: Any, sample: Tensor, timestep: Tensor) -> float:
    """Return the factor of the model's input; flow matching's own classes have none."""
    if not hasattr(scheduler, "scale_model_input"):
        return 1.0
    return float(scheduler.scale_model_input(sample, timestep).flatten()[0])


def _coordinates(vector: Tensor, count: int, noise: Tensor) -> Tensor:
    """Return (count + 1,): weights of slots and model output, then of the noise.

    Only noise reaches the spare coordinates, so there its weight can be read off.
    """
    flat = vector.flatten().double()
    spare = noise[count:].double()
    weight = (flat[count:] @ spare) / (spare @ spare) if spare.any() else torch.zeros(()).double()
    return torch.cat([flat[:count] - weight * noise[:count].double(), weight[None]])


def _compact(matrices: Sequence[Tensor]) -> Tensor:
    """Return (K, depth, depth + 2), without the slots that no later sample depends on."""
    alive = [[0]]
    for matrix in reversed(matrices):
        slots = matrix.shape[1] - 2
        used = matrix[alive[-1], :slots].abs().amax(dim=0) > RESIDUE
        alive.append([0, *(slot for slot in range(1, slots) if used[slot])])
    alive.reverse()
    depth = max(len(slots) for slots in alive)
    table = torch.zeros(len(matrices), depth, depth + 2, dtype=torch.float32)
    for call, matrix in enumerate(matrices):
        before, after = alive[call], alive[call + 1]
        table[call, : len(after), : len(before)] = matrix[after][:, before].float()
        table[call, : len(after), depth:] = matrix[after, -2:].float()
    return table


# -- a scheduler's memory -----------------------------------------------------------------------


def _unit(index: int) -> Tensor:
    """Return the unit vector of one coordinate, shaped like latents."""
    vector = torch.zeros(1, 1, 1, WIDTH, dtype=torch.float32)
    vector[..., index] = 1.0
    return vector


def _remembered(scheduler: Any) -> list[Path]:
    """Return the places where the scheduler keeps tensors shaped like latents."""
    paths: list[Path] = []
    for name, value in sorted(vars(scheduler).items()):
        if _is_state(value):
            paths.append((name, None))
        elif isinstance(value, list):
            paths += [(name, index) for index, item in enumerate(value) if _is_state(item)]
    return paths


def _is_state(value: object) -> bool:
    return isinstance(value, Tensor) and value.shape == (1, 1, 1, WIDTH)


def _read(scheduler: Any, path: Path) -> Tensor:
    name, index = path
    value = getattr(scheduler, name)
    tensor: Tensor = value if index is None else value[index]
    return tensor


def _write(scheduler: Any, path: Path, tensor: Tensor) -> None:
    name, index = path
    if index is None:
        setattr(scheduler, name, tensor)
    else:
        getattr(scheduler, name)[index] = tensor
