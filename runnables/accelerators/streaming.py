"""A component that stays in main memory is run on the device by layers, with diffusers' hooks."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from runnables.families.base import Family


def move(family: Family, device: torch.device, streamed: Collection[str] = ()) -> None:
    """Move a model to the device, but for the components that are streamed."""
    for name, part in family.checkpoint.components.items():
        if not isinstance(part, nn.Module):
            continue
        if name in streamed:
            _stream(part, device, blocks=name == family.denoiser_name)
        else:
            part.to(device)


def _stream(module: nn.Module, device: torch.device, *, blocks: bool) -> None:
    """Bring each layer to the device for its call, the next one while the one before it runs.

    Args:
        blocks: whether it consists of blocks in lists, which are moved as wholes; else every layer
            is moved by itself, which also serves `vae.decode` and the nested blocks of T5.
    """
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(
        module,
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level" if blocks else "leaf_level",
        num_blocks_per_group=1 if blocks else None,
        use_stream=device.type == "cuda",
    )
