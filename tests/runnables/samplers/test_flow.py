"""Tables for flow matching give the trajectories of diffusers' own schedulers."""

from __future__ import annotations

import inspect
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from runnables.errors import InvalidInput
from runnables.samplers.compile import compile_table
from runnables.samplers.names import DEFAULT, resolve, samplers
from runnables.samplers.table import SamplerTable, advance

SHAPE = (1, 4, 4, 4)
NOISE, IMAGE = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(i)) for i in (5, 6))
WEIGHT = torch.randn(4, 4, generator=torch.Generator().manual_seed(7)) / 4
EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
#: diffusers' scheduler of each sampler, written down here once more: class, options
THEIRS: dict[str, tuple[Any, dict[str, Any]]] = {
    "default": (FlowMatchEulerDiscreteScheduler, {}),
    "euler": (FlowMatchEulerDiscreteScheduler, {}),
    "euler_karras": (FlowMatchEulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "euler_exponential": (FlowMatchEulerDiscreteScheduler, {"use_exponential_sigmas": True}),
    "heun": (FlowMatchHeunDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, FLOW),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, {**FLOW, "algorithm_type": "sde-dpmsolver++"}),
    "unipc": (UniPCMultistepScheduler, FLOW),
    "unipc_karras": (UniPCMultistepScheduler, {**FLOW, "use_karras_sigmas": True}),
    "deis": (DEISMultistepScheduler, FLOW),
}


def theirs(name: str, shift: float | None = None, **options: Any) -> Any:
    """Return diffusers' scheduler of a sampler; it has no shift, because that is dynamic."""
    scheduler, own = THEIRS[name]
    accepted = inspect.signature(scheduler.__init__).parameters
    if shift is None:
        options["use_dynamic_shifting"] = True
        if "time_shift_type" in accepted:
            options["time_shift_type"] = "exponential"
    else:
        options["shift" if "shift" in accepted else "flow_shift"] = shift
    return scheduler(**own, **options)


def model(sample: Tensor, timestep: Tensor | float) -> Tensor:
    """Return a random linear model, another one at every timestep."""
    return sample @ WEIGHT + (float(timestep) / 1000 - 0.5) * sample.roll(1, -1)


def noised(scheduler: Any, timestep: Tensor) -> Tensor:
    if hasattr(scheduler, "scale_noise"):
        mixed: Tensor = scheduler.scale_noise(IMAGE, timestep, NOISE)
    else:
        mixed = scheduler.add_noise(IMAGE, NOISE, timestep)
    return mixed


def scheduler_run(scheduler: Any, steps: int, strength: float | None = None) -> Tensor:
    """Run the loop of diffusers' SD3 pipelines; `scheduler` has its timesteps already."""
    timesteps, sample = scheduler.timesteps, NOISE
    if strength is not None:
        first = int(max(steps - min(steps * strength, steps), 0)) * scheduler.order
        timesteps = timesteps[first:]
        scheduler.set_begin_index(first)
        sample = noised(scheduler, timesteps[:1])
    generator = torch.Generator().manual_seed(9)
    for timestep in timesteps:
        output = model(sample, timestep)
        sample = scheduler.step(
            output, timestep, sample, return_dict=False, **arguments(scheduler, generator)
        )[0]
    return sample


def arguments(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    takes = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": generator} if takes else {}


def table_run(table: SamplerTable) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    buffer = torch.zeros(1, table.depth + 2, *SHAPE[1:])
    buffer[:, 0] = table.start[0] * IMAGE + table.start[1] * NOISE
    for call in range(len(table)):
        buffer[:, -2] = model(table.input_scale[call] * buffer[:, 0], table.timesteps[call])
        if table.draws_noise[call]:
            buffer[:, -1] = torch.randn(SHAPE, generator=generator)
        buffer[:, : table.depth] = advance(buffer, table.coefficients[call][None])
    return buffer[:, 0]


def close(table: SamplerTable, expected: Tensor, bound: float = 1e-5) -> None:
    assert expected.isfinite().all()
    apart = float((table_run(table) - expected).abs().max())
    assert apart <= bound * max(1.0, float(expected.abs().max())), apart


def test_every_sampler_that_fits_is_compared() -> None:
    assert {"default"} | {one.name for one in samplers().values() if one.fits("flow")} == set(
        THEIRS
    )


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(
    ("steps", "strength"), [(4, None), (20, None), (20, 0.6), (10, 0.75), (10, 1.0), (4, 0.2)]
)
@pytest.mark.parametrize("name", THEIRS)
def test_static_shift(name: str, steps: int, strength: float | None, shift: float) -> None:
    scheduler = theirs(name, shift)
    scheduler.set_timesteps(steps)
    config = {**EULER, "shift": shift}
    table = compile_table(resolve(name), config, steps, strength=strength)
    # DEIS' own float32 arithmetic is 4e-4 away from the same steps in float64
    bound = 5e-5 if name == "deis" else 1e-5
    close(table, scheduler_run(scheduler, steps, strength), bound)


@pytest.mark.parametrize("name", [name for name in THEIRS if name != "heun"])
def test_dynamic_shift(name: str) -> None:
    config = {**EULER, "use_dynamic_shifting": True, "time_shift_type": "exponential"}
    ends = []
    for mu in (0.5, 1.15):
        scheduler = theirs(name)
        scheduler.set_timesteps(8, mu=mu)
        table = compile_table(resolve(name), config, 8, mu=mu)
        close(table, scheduler_run(scheduler, 8))
        assert torch.equal(table.timesteps, scheduler.timesteps.float())
        ends.append(table.timesteps)
    assert name == "unipc_karras" or not torch.equal(*ends)  # both tables, not one from the cache


def test_a_sampler_that_cannot_shift_with_the_size_is_refused_by_name() -> None:
    config = {**EULER, "use_dynamic_shifting": True}
    with pytest.raises(InvalidInput, match=r"heun does not fit this model.* mu") as caught:
        compile_table(resolve("heun"), config, 8, mu=1.0)
    assert caught.value.loc == ("scheduler",)
    table = compile_table(resolve("heun"), EULER, 8, mu=1.0)  # this model does not shift so
    assert table is not None


@pytest.mark.parametrize("name", ["default", "euler", "dpmpp_2m", "unipc"])
def test_noise_levels_of_the_pipeline(name: str) -> None:
    """FLUX' pipelines do not pass them to the multistep classes."""
    sigmas = tuple(1 - i / 6 for i in range(6))
    scheduler = theirs(name, 3.0)
    if name in ("default", "euler"):
        scheduler.set_timesteps(sigmas=list(sigmas))
    else:
        scheduler.set_timesteps(6)
    table = compile_table(resolve(name), {**EULER, "shift": 3.0}, 6, sigmas=sigmas)
    close(table, scheduler_run(scheduler, 6))
    assert torch.equal(table.timesteps, scheduler.timesteps.float())


@pytest.mark.parametrize("strength", [0.35, 1.0])
@pytest.mark.parametrize("name", THEIRS)
def test_inpainting_renoises_as_scale_noise_does(name: str, strength: float) -> None:
    table = compile_table(
        resolve(name), {**EULER, "shift": 3.0}, 10, strength=strength, pure_noise=strength == 1
    )
    scheduler = theirs(name, 3.0)
    scheduler.set_timesteps(10)
    first = int(10 - 10 * strength) * scheduler.order
    timesteps = scheduler.timesteps[first:]
    scheduler.set_begin_index(first)
    if strength == 1:
        assert table.start == (0.0, 1.0)
    else:
        start = table.start[0] * IMAGE + table.start[1] * NOISE
        assert torch.allclose(start, noised(scheduler, timesteps[:1]), atol=1e-6)
    for call, (now, later) in enumerate(pairwise(timesteps)):
        scheduler.step(IMAGE, now, IMAGE, return_dict=False)
        of_image, of_noise = table.renoise[call].tolist()
        expected = noised(scheduler, later[None])
        assert torch.allclose(of_image * IMAGE + of_noise * NOISE, expected, atol=1e-6)
    assert table.renoise[-1].tolist() == [1.0, 0.0]


def test_noise_is_drawn_in_the_schedulers_order() -> None:
    config = {**EULER, "shift": 3.0, "stochastic_sampling": True}
    scheduler = theirs("euler", 3.0, stochastic_sampling=True)
    scheduler.set_timesteps(6)
    table = compile_table(DEFAULT, config, 6)
    close(table, scheduler_run(scheduler, 6))
    assert table.draws_noise == (True,) * 6
    sde = compile_table(resolve("dpmpp_2m_sde"), {**EULER, "shift": 3.0}, 6)
    assert all(sde.draws_noise)
    for name in THEIRS:
        if not resolve(name).stochastic:
            assert not any(compile_table(resolve(name), EULER, 6).draws_noise)


def test_the_shift_of_a_multistep_config_is_the_models() -> None:
    """A model may ship a multistep class of its own; its shift goes by another name there."""
    config = {"_class_name": "UniPCMultistepScheduler", **FLOW, "flow_shift": 3.0}
    for name in ("default", "unipc"):
        scheduler = theirs("unipc", 3.0)
        scheduler.set_timesteps(6)
        close(compile_table(resolve(name), config, 6), scheduler_run(scheduler, 6))
    scheduler = theirs("euler", 3.0)
    scheduler.set_timesteps(6)
    close(compile_table(resolve("euler"), config, 6), scheduler_run(scheduler, 6))


@pytest.mark.parametrize("strength", [0.1, 0.24])
def test_a_strength_that_leaves_no_step(strength: float) -> None:
    """Flow matching's pipelines round the steps that are left out down, so that one is run."""
    table = compile_table(resolve("euler"), EULER, 4, strength=strength)
    assert len(table) == math.ceil(4 * strength)
    with pytest.raises(InvalidInput, match=f"strength {strength} of 4 steps") as caught:
        compile_table(resolve("euler"), {"_class_name": "DDIMScheduler"}, 4, strength=strength)
    assert caught.value.loc == ("strength",)


def test_steps_that_share_a_timestep_are_run() -> None:
    """UniPC refuses them where it has to look for its step by the timestep."""
    table = compile_table(resolve("unipc_karras"), {**EULER, "shift": 3.0}, 150)
    assert len(table) == 150
    assert len(set(table.timesteps.tolist())) < 150
    assert all(math.isfinite(one) for pair in table.levels for one in pair)
