"""Writes a diffusers model as one checkpoint file in the layout of the original CompVis code.

The names are those of latent-diffusion and, for SDXL, of generative-models and open_clip; made for
the UNets of tests.tiny.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.": "",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "layer_norm": "ln_",
    "self_attn": "attn",
    "fc1": "c_fc",
    "fc2": "c_proj",
}


def write(pipeline: Any, path: Path) -> Path:
    """Save a StableDiffusionPipeline or StableDiffusionXLPipeline as one .safetensors file."""
    weights: dict[str, Tensor] = {}
    layers = pipeline.unet.config.layers_per_block
    for name, value in pipeline.unet.state_dict().items():
        weights["model.diffusion_model." + unet_name(name, layers)] = value
    last = len(pipeline.vae.config.block_out_channels) - 1
    for name, value in pipeline.vae.state_dict().items():
        renamed = vae_name(name, last)
        is_projection = ".attn_1." in renamed and value.ndim == 2
        shaped = value[:, :, None, None] if is_projection else value
        weights["first_stage_model." + renamed] = shaped
    weights |= text_encoders(pipeline)
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


def text_encoders(pipeline: Any) -> dict[str, Tensor]:
    """The text encoders' weights under their original names."""
    second = getattr(pipeline, "text_encoder_2", None)
    weights: dict[str, Tensor] = {}
    if pipeline.text_encoder is not None:
        prefix = "conditioner.embedders.0" if second else "cond_stage_model"
        for name, value in pipeline.text_encoder.state_dict().items():
            plain = name if name.startswith("text_model.") else f"text_model.{name}"
            weights[f"{prefix}.transformer.{plain}"] = value
    if second is not None:
        prefix = f"conditioner.embedders.{len(weights) and 1}.model."
        named = open_clip(second.state_dict())
        weights |= {prefix + name: value for name, value in named.items()}
    return weights


def open_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CLIPTextModelWithProjection's weights as open_clip names and packs them."""
    packed = {"text_projection": weights["text_projection.weight"].T}
    for name, value in weights.items():
        if "k_proj" in name or "v_proj" in name or name == "text_projection.weight":
            continue
        renamed = name
        for ours, theirs in OPEN_CLIP.items():
            renamed = renamed.replace(ours, theirs)
        if "q_proj" in name:
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            renamed, value = renamed.replace("q_proj.", "in_proj_"), torch.cat(parts)
        packed[renamed] = value
    return packed


def unet_name(name: str, layers: int) -> str:
    """diffusers' name of a UNet weight -> the original's."""
    for ours, theirs in UNET.items():
        if name.startswith(ours + "."):
            return name.replace(ours, theirs, 1)
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name):
        side, block, kind, index, rest = match.groups()
        return _block(side, int(block), kind, int(index), rest, layers)
    match = re.match(r"mid_block\.(\w+)\.(\d+)\.(.*)", name)
    assert match
    kind, index, rest = match.groups()
    if kind == "attentions":
        return f"middle_block.1.{rest}"
    return f"middle_block.{2 * int(index)}.{_resnet(rest)}"


def _block(side: str, block: int, kind: str, index: int, rest: str, layers: int) -> str:
    first = (layers + 1) * block
    if side == "down":
        place = {"downsamplers": first + layers + 1}.get(kind, first + index + 1)
        prefix = f"input_blocks.{place}"
    else:
        prefix = f"output_blocks.{first + (layers if kind == 'upsamplers' else index)}"
    if kind == "resnets":
        return f"{prefix}.0.{_resnet(rest)}"
    if kind == "attentions":
        return f"{prefix}.1.{rest}"
    if kind == "downsamplers":
        return f"{prefix}.0.{rest.replace('conv', 'op')}"
    return f"{prefix}.{2 if block == 0 else 1}.{rest}"  # the tiny UNet's first up block attends


def _resnet(rest: str) -> str:
    part, _, leaf = rest.partition(".")
    return f"{RESNET[part]}.{leaf}"


def vae_name(name: str, last: int) -> str:
    """diffusers' name of an autoencoder weight -> the original's."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(
        r"up_blocks\.(\d+)\.resnets\.(\d+)",
        lambda m: f"up.{last - int(m[1])}.block.{m[2]}",
        name,
    )
    name = re.sub(
        r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name
    )
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0." in name:
        name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
        for ours, theirs in ATTENTION.items():
            name = name.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
    return name


# -- Stable Diffusion 3 -------------------------------------------------------------------------

#: diffusers' names outside of the transformer's blocks -> the original's
MMDIT = {
    "pos_embed.proj": "x_embedder.proj",
    "pos_embed.pos_embed": "pos_embed",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
#: diffusers' names within a block -> the original's; queries, keys and values are packed apart
MMDIT_BLOCK = {
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
QKV = {
    "x_block": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}


def write_sd3(pipeline: Any, path: Path, encoders: tuple[str, ...] = ()) -> Path:
    """Save a StableDiffusion3Pipeline as one file, with these text encoders inside.

    Args:
        encoders: of clip_l, clip_g and t5xxl.
    """
    weights = {f"model.diffusion_model.{k}": v for k, v in _mmdit(pipeline.transformer).items()}
    last = len(pipeline.vae.config.block_out_channels) - 1
    for name, value in pipeline.vae.state_dict().items():
        renamed = vae_name(name, last)
        is_projection = ".attn_1." in renamed and value.ndim == 2
        shaped = value[:, :, None, None] if is_projection else value
        weights["first_stage_model." + renamed] = shaped
    numbers = {"clip_l": "", "clip_g": "_2", "t5xxl": "_3"}
    for name in encoders:
        encoder = getattr(pipeline, f"text_encoder{numbers[name]}")
        for key, value in encoder.state_dict().items():
            nested = key.startswith(("text_model.", "text_projection")) or name == "t5xxl"
            full = key if nested else f"text_model.{key}"
            weights[f"text_encoders.{name}.transformer.{full}"] = value
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, path)
    return path


def _mmdit(transformer: Any) -> dict[str, Tensor]:
    own, blocks = transformer.state_dict(), len(transformer.transformer_blocks)
    weights: dict[str, Tensor] = {}
    for name, value in own.items():
        stem, _, kind = name.rpartition(".")
        if name == "pos_embed.pos_embed":
            weights["pos_embed"] = value
        elif match := re.match(r"transformer_blocks\.(\d+)\.(.*)", stem):
            index, rest = int(match[1]), match[2]
            if rest in MMDIT_BLOCK:
                swapped = rest == "norm1_context.linear" and index == blocks - 1
                original = f"joint_blocks.{index}.{MMDIT_BLOCK[rest]}.{kind}"
                weights[original] = _swapped(value) if swapped else value
        else:
            original = f"{MMDIT.get(stem, stem)}.{kind}"
            weights[original] = _swapped(value) if stem == "norm_out.linear" else value
    for index in range(blocks):
        for side, parts in QKV.items():
            for kind in ("weight", "bias"):
                packed = [own[f"transformer_blocks.{index}.{part}.{kind}"] for part in parts]
                weights[f"joint_blocks.{index}.{side}.attn.qkv.{kind}"] = torch.cat(packed)
    return weights


def _swapped(value: Tensor) -> Tensor:
    """Shift and scale in the original's order."""
    return torch.cat(value.chunk(2)[::-1])


#: diffusers' layers of FLUX's blocks -> those of the original code, in the order of their rows
FLUX_DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
FLUX_SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}
FLUX_OUTSIDE = {
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "txt_in": ("context_embedder",),
    "img_in": ("x_embedder",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}


def flux(transformer: Any) -> dict[str, Tensor]:
    """The weights of a FluxTransformer2DModel by the names of the original code."""
    own = transformer.state_dict()
    parts = [("", "", FLUX_OUTSIDE)]
    for kind, blocks, layers in (
        ("double_blocks", "transformer_blocks", FLUX_DOUBLE),
        ("single_blocks", "single_transformer_blocks", FLUX_SINGLE),
    ):
        count = len(getattr(transformer, blocks))
        parts += [(f"{kind}.{i}.", f"{blocks}.{i}.", layers) for i in range(count)]
    weights: dict[str, Tensor] = {}
    for theirs, ours, layers in parts:
        for name, paths in layers.items():
            for what in ("weight", "bias"):
                found = [own[f"{ours}{p}.{what}"] for p in paths if f"{ours}{p}.{what}" in own]
                if found:
                    last = "scale" if name.endswith("_norm") else what
                    weights[f"{theirs}{name}.{last}"] = torch.cat(found)
    for what in ("weight", "bias"):  # diffusers has scale before shift there
        name = f"final_layer.adaLN_modulation.1.{what}"
        scale, shift = weights[name].chunk(2)
        weights[name] = torch.cat([shift, scale])
    return weights
