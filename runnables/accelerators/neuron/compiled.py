"""The parts that optimum-neuron compiled are called here as the pipelines call their own parts.

A compiled part takes exactly the shapes it was compiled for. Text encoder and VAE are called as
often as a batch needs, and padded here; the UNet's rows are padded by the engine. Each row brings
its own timestep: `NeuronModelUnet.forward` hands a vector of them to the compiled graph unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from runnables.accelerators.neuron.compilation import MANIFEST
from runnables.checkpoints.checkpoint import Checkpoint, Compiled, profile_of
from runnables.checkpoints.components import refusal
from runnables.checkpoints.families import family_of

Size = tuple[int, int]
ROWS_PER_BATCH = 2  # the UNet is loaded on both cores of a device, half of the rows on each


def load_compiled(source: str) -> Checkpoint:
    """Load what `python -m models compile-neuron` wrote, or a compiled repository of the Hub.

    Raises:
        ConfigurationError: it is not compiled, or not all of it is there.
    """
    folder = _folder(source)
    pipelines = [_load(each) for each in _shapes(folder)]
    first, index = pipelines[0], _read(_shapes(folder)[0] / "model_index.json")
    family = family_of(index)
    scheduler_config = dict(first.scheduler.config)
    profile = _shapes(folder)[0] / "profile.json"
    return Checkpoint(
        name=folder.name,
        family=family,
        components={
            **_text_parts(first, xl=family != "stable-diffusion"),
            "unet": CompiledUnet({_latent_size(one): one.unet for one in pipelines}),
            "vae": CompiledVae({_latent_size(one): one for one in pipelines}),
        },
        scheduler_config=scheduler_config,
        profile=profile_of(family, scheduler_config, _read(profile) if profile.is_file() else {}),
        config=index,
        compiled=Compiled(
            tuple(_image_size(one) for one in pipelines),
            min(ROWS_PER_BATCH * _static(one.unet, "batch_size") for one in pipelines),
        ),
    )


def _text_parts(pipeline: Any, *, xl: bool) -> dict[str, Any]:
    """Return the tokenizers unchanged, and the text encoders with their static shapes hidden."""
    parts: dict[str, Any] = {}
    for number in ("", "_2"):
        if encoder := getattr(pipeline, f"text_encoder{number}", None):
            parts[f"text_encoder{number}"] = CompiledTextEncoder(encoder, xl)
            parts[f"tokenizer{number}"] = getattr(pipeline, f"tokenizer{number}")
    return parts


class CompiledUnet:
    """A compiled UNet has one graph per latent size."""

    def __init__(self, parts: Mapping[Size, Any]) -> None:
        self._parts = parts
        self.config = next(iter(parts.values())).config

    def __call__(
        self,
        sample: Tensor,
        timesteps: Tensor,
        *,
        encoder_hidden_states: Tensor,
        timestep_cond: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Return the output (U, C, h, w) as diffusers' UNet2DConditionModel does.

        U is the number of compiled rows.
        """
        part = self._parts[_last_two(sample)]
        dtype = part.neuron_config.float_dtype
        added = {k: v.to(dtype) for k, v in (added_cond_kwargs or {}).items()}
        output = part(
            sample.to(dtype),
            timesteps,
            encoder_hidden_states.to(dtype),
            added_cond_kwargs=added or None,
            timestep_cond=timestep_cond,
            return_dict=False,
        )
        return (_first(output),)


class CompiledVae:
    """A compiled VAE has one encoder and one decoder per latent size."""

    dtype = torch.float32

    def __init__(self, pipelines: Mapping[Size, Any]) -> None:
        self._pipelines = pipelines
        self.config = next(iter(pipelines.values())).vae.config
        self._factor = 2 ** (len(self.config.block_out_channels) - 1)

    def encode(self, pixels: Tensor) -> Any:
        """Encode (N, 3, H, W) to an object with `latent_dist`."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        height, width = _last_two(pixels)
        part = self._pipelines[height // self._factor, width // self._factor].vae_encoder
        chunks = _padded(pixels, _static(part, "batch_size"))
        moments = [part(chunk).latent_dist.parameters[:real] for chunk, real in chunks]
        return SimpleNamespace(latent_dist=DiagonalGaussianDistribution(torch.cat(moments)))

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """Decode (N, C, h, w) to (N, 3, H, W)."""
        part = self._pipelines[_last_two(latents)].vae_decoder
        chunks = _padded(latents, _static(part, "batch_size"))
        return (torch.cat([part(chunk, return_dict=False)[0][:real] for chunk, real in chunks]),)

    def to(self, *args: Any) -> None:
        """Do nothing, because the compiler has fixed the number format."""


class CompiledTextEncoder:
    """A compiled CLIP takes as many prompts per call as it was compiled for."""

    device = torch.device("cpu")

    def __init__(self, part: Any, xl: bool) -> None:
        self._part = part
        # no layer can be skipped; SDXL's own choice, the one before the last, counts as one
        self.config = SimpleNamespace(num_hidden_layers=int(xl), use_attention_mask=False)

    def __call__(
        self,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> Any:
        """Return what transformers' model returns: `[0]`, and for SDXL `hidden_states`."""
        chunks = _padded(ids, _static(self._part, "batch_size"))
        outputs = [_cut(self._part(chunk), real) for chunk, real in chunks]
        return _Output(*(_joined(parts) for parts in zip(*outputs, strict=True)))


class _Output(tuple[Any, ...]):
    """An output has transformers' values by place; hidden states come last where there are any."""

    def __new__(cls, *values: Any) -> _Output:
        return super().__new__(cls, values)

    @property
    def hidden_states(self) -> Any:
        return self[-1]


# -- files ----------------------------------------------------------------------------------


def _folder(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve()
    from huggingface_hub import snapshot_download

    name, _, revision = source.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None))
    except Exception as error:
        raise refusal(
            f"SD_MODEL={source}: no such folder, and it could not be fetched from the Hub"
        ) from error


def _shapes(folder: Path) -> list[Path]:
    """Return the folder of every shape; optimum-neuron's own folder has one shape."""
    manifest = folder / MANIFEST
    if manifest.is_file():
        return [folder / name for name in _read(manifest)["shapes"]]
    if not list(folder.glob("unet/*.neuron")):
        raise refusal(
            f"{folder} is not compiled for Neuron: python -m models compile-neuron {folder}"
        )
    return [folder]


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise refusal(f"{path} cannot be read: {error}") from error
    return content


def _load(folder: Path) -> Any:
    from optimum import neuron

    xl = "XL" if (folder / "text_encoder_2").is_dir() else ""
    try:
        return getattr(neuron, f"NeuronStableDiffusion{xl}Pipeline").from_pretrained(folder)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise refusal(f"{folder} cannot be loaded: {error}") from error


# -- shapes ---------------------------------------------------------------------------------


def _static(part: Any, name: str) -> int:
    return int(part.config.neuron[f"static_{name}"])


def _latent_size(pipeline: Any) -> Size:
    return _static(pipeline.unet, "height"), _static(pipeline.unet, "width")


def _image_size(pipeline: Any) -> Size:
    height, width = _latent_size(pipeline)
    factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    return height * factor, width * factor


def _last_two(tensor: Tensor) -> Size:
    return int(tensor.shape[-2]), int(tensor.shape[-1])


def _padded(batch: Tensor, size: int) -> Iterator[tuple[Tensor, int]]:
    """Yield chunks of exactly `size`, the last one padded by repeating, each with its real rows."""
    for chunk in batch.split(size):
        missing = size - len(chunk)
        yield torch.cat([chunk, chunk[:1].expand(missing, *chunk.shape[1:])]), len(chunk)


def _cut(output: Mapping[str, Any], real: int) -> list[Any]:
    return [_each(value, lambda tensor: tensor[:real]) for value in output.values()]


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, list | tuple):
        return [change(one) for one in value]
    return change(value)


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], list):
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]
    return torch.cat(list(parts))


def _first(output: Any) -> Tensor:
    tensor: Tensor = next(iter(output.values())) if hasattr(output, "values") else output[0]
    return tensor
