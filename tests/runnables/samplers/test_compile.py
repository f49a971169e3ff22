"""A table gives the scheduler's own trajectory, whatever the model answers."""

from __future__ import annotations

import copy
import functools
import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from torch import Tensor

from runnables.samplers.compile import compile_table
from runnables.samplers.names import Sampler, resolve, samplers
from runnables.samplers.scheduler import make_scheduler
from runnables.samplers.table import SamplerTable, advance, pad_depth
from tests.long import LONG

CONFIG = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
}
SHAPE = (1, 4, 4, 4)
NOISE, IMAGE = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(i)) for i in (5, 6))


def answer(sample: Tensor, timestep: Tensor | float) -> Tensor:
    """Answer like a UNet: not linear, and different at every timestep."""
    return torch.tanh(sample.roll(1, -1) * 0.7 + 0.1 * sample + float(timestep) / 1000)


@functools.cache
def _unused(sampler: Sampler, config: str) -> Any:
    return make_scheduler(sampler, json.loads(config))


def fresh(sampler: Sampler, config: dict[str, Any]) -> Any:
    """An unused scheduler: making one takes up to half a second, and copying it almost none."""
    return copy.deepcopy(_unused(sampler, json.dumps(config)))


def scheduler_run(
    sampler: Sampler,
    config: dict[str, Any],
    steps: int,
    strength: float | None,
    *,
    begins: bool = False,
) -> Tensor:
    """Run the scheduler's own loop, as diffusers' pipelines do.

    Args:
        begins: whether the scheduler is passed the first index, as by Stable Diffusion XL's.
    """
    scheduler = fresh(sampler, config)
    scheduler.set_timesteps(steps)
    timesteps, sample = scheduler.timesteps, NOISE * scheduler.init_noise_sigma
    if begins:
        scheduler.set_begin_index(0)
    if strength is not None:
        first = max(steps - min(int(steps * strength), steps), 0) * scheduler.order
        timesteps = timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        sample = scheduler.add_noise(IMAGE, NOISE, timesteps[:1])
    options = {"generator": torch.Generator().manual_seed(9), "eta": 0.0}
    accepted = inspect.signature(scheduler.step).parameters
    options = {k: v for k, v in options.items() if k in accepted}
    for timestep in timesteps:
        output = answer(scheduler.scale_model_input(sample, timestep), timestep)
        sample = scheduler.step(output, timestep, sample, return_dict=False, **options)[0]
    return sample


def table_run(table: SamplerTable) -> Tensor:
    """Run the same steps by the table."""
    generator = torch.Generator().manual_seed(9)
    buffer = torch.zeros(1, table.depth + 2, *SHAPE[1:])
    buffer[:, 0] = table.start[0] * IMAGE + table.start[1] * NOISE
    for call in range(len(table)):
        buffer[:, -2] = answer(table.input_scale[call] * buffer[:, 0], table.timesteps[call])
        if table.draws_noise[call]:
            buffer[:, -1] = torch.randn(SHAPE, generator=generator)
        buffer[:, : table.depth] = advance(buffer, table.coefficients[call][None])
    return buffer[:, 0]


RUNS = [(1, None), (4, None), (20, None), (20, 0.6)]
OF_VELOCITY = RUNS if LONG else [(4, None), (20, 0.6)]


@pytest.mark.parametrize(
    ("prediction", "steps", "strength"),
    [*(("epsilon", *run) for run in RUNS), *(("v_prediction", *run) for run in OF_VELOCITY)],
)
@pytest.mark.parametrize("name", samplers())
def test_trajectory(name: str, steps: int, strength: float | None, prediction: str) -> None:
    sampler, config = resolve(name), {**CONFIG, "prediction_type": prediction}
    expected = scheduler_run(sampler, config, steps, strength)
    generated = table_run(compile_table(sampler, config, steps, strength=strength))
    assert (generated - expected).abs().max() <= 2e-5 * max(10.0, float(expected.abs().max()))


@pytest.mark.parametrize("name", ["dpmpp_2m_karras", "dpmpp_2m_sde_exponential", "unipc_karras"])
def test_the_first_of_equal_timesteps_is_begun_with(name: str) -> None:
    """With a terminal SNR of zero several levels round to the last timestep."""
    zero_snr = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    sampler, config = resolve(name), CONFIG | zero_snr | {"timestep_spacing": "trailing"}
    expected = scheduler_run(sampler, config, 30, None, begins=True)
    generated = table_run(compile_table(sampler, config, 30))
    assert (generated - expected).abs().max() <= 2e-5 * max(10.0, float(expected.abs().max()))


def test_depths_are_minimal() -> None:
    depths = {name: compile_table(resolve(name), CONFIG, 20).depth for name in samplers()}
    assert {depths[name] for name in ("ddim", "euler", "euler_a", "ddpm", "lcm")} == {1}
    assert depths["dpmpp_2m"] == depths["dpmpp_2m_sde"] == 2
    assert max(depths.values()) <= 5


def test_the_list_says_which_samplers_add_noise() -> None:
    tables = {name: compile_table(resolve(name), CONFIG, 20) for name in samplers()}
    adding = {name for name, table in tables.items() if table.coefficients[..., -1].any()}
    assert adding == {name for name, one in samplers().items() if one.stochastic}


@pytest.mark.parametrize("strength", [0.7, 1.0])
@pytest.mark.parametrize("name", samplers())
def test_inpainting_renoises_as_add_noise_does(name: str, strength: float) -> None:
    """diffusers' inpainting passes the scheduler its first index, at full strength too."""
    table = compile_table(resolve(name), CONFIG, 10, strength=strength, pure_noise=strength == 1.0)
    scheduler = fresh(resolve(name), CONFIG)
    scheduler.set_timesteps(10)
    first = (10 - int(10 * strength)) * scheduler.order
    timesteps = scheduler.timesteps[first:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    for call, (now, later) in enumerate(pairwise(timesteps)):
        scheduler.scale_model_input(IMAGE, now)
        scheduler.step(IMAGE, now, IMAGE, return_dict=False)
        of_image, of_noise = table.renoise[call].tolist()
        expected = scheduler.add_noise(IMAGE, NOISE, later[None])
        assert torch.allclose(of_image * IMAGE + of_noise * NOISE, expected, atol=1e-4)
    assert table.renoise[-1].tolist() == [1.0, 0.0]


def test_class_defaults_of_a_live_config_are_not_options() -> None:
    """A config read off a scheduler object says which of its values nobody has chosen."""
    live = dict(make_scheduler(resolve("pndm"), {"_class_name": "PNDMScheduler"}).config)
    assert live["timestep_spacing"] == "leading"
    scheduler = make_scheduler(resolve("euler"), {**live, "_class_name": "PNDMScheduler"})
    assert scheduler.config.timestep_spacing == "linspace"


def test_a_mixed_batch_advances_each_row_as_alone() -> None:
    tables = [
        compile_table(resolve(name), CONFIG, 6) for name in ("euler", "dpmpp_2m", "pndm", "unipc")
    ]
    depth = max(table.depth for table in tables)
    generator = torch.Generator().manual_seed(0)
    buffer = torch.zeros(len(tables), depth + 2, *SHAPE[1:])
    alone = []
    for row, table in enumerate(tables):
        own = torch.randn(1, table.depth + 2, *SHAPE[1:], generator=generator)
        buffer[row, : table.depth], buffer[row, depth:] = own[0, :-2], own[0, -2:]
        alone.append(advance(own, table.coefficients[2][None])[0])
    padded = torch.stack([pad_depth(table, depth).coefficients[2] for table in tables])
    mixed = advance(buffer, padded)
    for row, table in enumerate(tables):
        assert torch.allclose(mixed[row, : table.depth], alone[row], atol=1e-5)


def test_options_that_are_not_linear_are_off() -> None:
    scheduler = make_scheduler(
        resolve("ddpm"), {"_class_name": "DDPMScheduler", "clip_sample": True}
    )
    assert scheduler.config.clip_sample is False
    with pytest.raises(ValueError, match="dynamic thresholding"):
        make_scheduler(resolve("ddim"), {"_class_name": "DDIMScheduler", "thresholding": True})


def test_compiling_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    compile_table(resolve("dpm2_a"), CONFIG, 7)
    assert torch.equal(before, torch.get_rng_state())


def test_compiling_in_many_threads_gives_the_same_tables() -> None:
    def compile_one(steps: int) -> Tensor:
        config = {**CONFIG, "marker": steps // 8}
        return compile_table(resolve("dpmpp_sde"), config, 5 + steps % 8).coefficients

    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(compile_one, range(32)))
    for index, table in enumerate(tables):
        assert torch.equal(table, tables[index % 8])


def test_denoising_is_cut_between_base_and_refiner() -> None:
    whole = compile_table(resolve("euler"), CONFIG, 20)
    base = compile_table(resolve("euler"), CONFIG, 20, denoising_end=0.8)
    refiner = compile_table(resolve("euler"), CONFIG, 20, denoising_start=0.8)
    joined = torch.cat([base.timesteps, refiner.timesteps])
    assert torch.equal(joined, whole.timesteps)
    assert refiner.start == (1.0, 0.0)


@pytest.mark.parametrize("begin", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("name", ["euler", "heun", "dpm2"])
def test_the_refiner_begins_where_diffusers_own_does(name: str, begin: float) -> None:
    """A sampler that calls the model twice per step never begins between the two calls."""
    scheduler = fresh(resolve(name), CONFIG)
    scheduler.set_timesteps(20)
    pipeline: Any = SimpleNamespace(scheduler=scheduler)
    cut = StableDiffusionXLImg2ImgPipeline.get_timesteps
    expected = cut(pipeline, 20, strength=1.0, device="cpu", denoising_start=begin)[0]
    table = compile_table(resolve(name), CONFIG, 20, denoising_start=begin)
    assert table.timesteps.tolist() == expected.tolist()


@pytest.mark.parametrize("name", samplers())
def test_tables_do_not_depend_on_the_default_dtype(name: str) -> None:
    """Another thread may be loading a half-precision model, which changes the default meanwhile."""
    from runnables.samplers import compile as compiling

    def anew() -> SamplerTable:
        compiling._compile.cache_clear()
        compiling._fresh.cache_clear()
        return compile_table(resolve(name), CONFIG, 6, strength=0.7, pure_noise=False)

    expected = anew()
    torch.set_default_dtype(torch.float16)
    try:
        table = anew()
    finally:
        torch.set_default_dtype(torch.float32)
    assert table.start == expected.start
    for part in ("coefficients", "input_scale", "timesteps", "renoise"):
        assert torch.equal(getattr(table, part), getattr(expected, part))
