"""kohya's LoRA names for Stable Diffusion 3's transformer are turned into diffusers' names here.

kohya's sd-scripts train on the original code, in which queries, keys and values are one layer; so
one low-rank product there is three here, which share their `down` matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Weights = dict[str, Tensor]
MARK = "lora_unet_joint_blocks_"
_BLOCK = re.compile(rf"{MARK}(\d+)_(x|context)_block_(\w+)")
_TEXT = {"lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2"}
#: a layer of the original code -> its layers in diffusers' block, by the side of the block
_LAYERS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "x": {
        "attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "attn_proj": ("attn.to_out.0",),
        "attn2_qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
        "attn2_proj": ("attn2.to_out.0",),
        "mlp_fc1": ("ff.net.0.proj",),
        "mlp_fc2": ("ff.net.2",),
        "adaLN_modulation_1": ("norm1.linear",),
    },
    "context": {
        "attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "attn_proj": ("attn.to_add_out",),
        "mlp_fc1": ("ff_context.net.0.proj",),
        "mlp_fc2": ("ff_context.net.2",),
        "adaLN_modulation_1": ("norm1_context.linear",),
    },
}
#: layers outside of the blocks
_OUTSIDE = {
    "lora_unet_context_embedder": "context_embedder",
    "lora_unet_x_embedder_proj": "pos_embed.proj",
    "lora_unet_t_embedder_mlp_0": "time_text_embed.timestep_embedder.linear_1",
    "lora_unet_t_embedder_mlp_2": "time_text_embed.timestep_embedder.linear_2",
    "lora_unet_y_embedder_mlp_0": "time_text_embed.text_embedder.linear_1",
    "lora_unet_y_embedder_mlp_2": "time_text_embed.text_embedder.linear_2",
    "lora_unet_final_layer_linear": "proj_out",
}


def from_kohya(weights: Weights, blocks: int, text_layers: Mapping[str, Sequence[str]]) -> Weights:
    """Return the weights with diffusers' names, and any alpha multiplied into the `up` matrices.

    Args:
        blocks: of the transformer: the last one orders its context's shift and scale otherwise.
        text_layers: for each text encoder the paths of its layers.

    Raises:
        ValueError: naming a layer that is not known.
    """
    stems = dict.fromkeys(key.partition(".")[0] for key in weights)
    converted: Weights = {}
    for stem in stems:
        down = weights[f"{stem}.lora_down.weight"]
        up = weights[f"{stem}.lora_up.weight"]
        alpha = weights.get(f"{stem}.alpha")
        scaled = up if alpha is None else up * (float(alpha) / down.shape[0])
        for path, part in _targets(stem, scaled, blocks, text_layers):
            converted[f"{path}.lora_A.weight"] = down
            converted[f"{path}.lora_B.weight"] = part
    return converted


def _targets(
    stem: str, up: Tensor, blocks: int, text_layers: Mapping[str, Sequence[str]]
) -> list[tuple[str, Tensor]]:
    """Return diffusers' layers for one of kohya's, each with its rows of the `up` matrix."""
    for prefix, component in _TEXT.items():
        if stem.startswith(prefix):
            return [(_text_path(stem.removeprefix(prefix), component, text_layers), up)]
    if stem in _OUTSIDE:
        return [(f"transformer.{_OUTSIDE[stem]}", up)]
    found = _BLOCK.fullmatch(stem)
    layers = _LAYERS[found[2]].get(found[3]) if found else None
    if found is None or layers is None:
        raise ValueError(f"{stem} is not known")
    block = f"transformer.transformer_blocks.{found[1]}"
    if layers == ("norm1_context.linear",) and int(found[1]) == blocks - 1:
        shift, scale = up.chunk(2)
        up = torch.cat([scale, shift])
    parts = up.chunk(len(layers))
    return [(f"{block}.{layer}", part) for layer, part in zip(layers, parts, strict=True)]


def _text_path(name: str, component: str, text_layers: Mapping[str, Sequence[str]]) -> str:
    plain = name.removeprefix("text_model_")
    for path in text_layers.get(component, ()):
        if path.removeprefix("text_model.").replace(".", "_") == plain:
            return f"{component}.{path.removeprefix('text_model.')}"
    raise ValueError(f"{name} is not a layer of {component}")
