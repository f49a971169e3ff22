"""A training loop that can be stopped and resumed, in one process or in several."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RANK = int(os.environ.get("RANK", "0"))
PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Join the other processes where `torchrun` started several.

    On a busy machine several processes of one thread are much faster than one process of several
    threads: they wait for each other once per step and not in every operation.
    """
    if PROCESSES > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")


class Run:
    """A training loop that can be stopped and resumed.

    The learning rate is constant after a short start and falls to nothing over the last part of
    the steps. A run may therefore be resumed with another number of steps.

    Args:
        module: the module to train; `ema` follows it with the given decay.
        steps: the number of optimiser steps in all.
        rate: the constant learning rate.
        fall: the share of the steps, at the end, in which the learning rate falls.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        work: Path,
        steps: int,
        rate: float,
        decay: float,
        fall: float = 0.3,
    ) -> None:
        join()
        self.name, self.module, self.steps, self.decay = name, module.to(DEVICE), steps, decay
        self.rate, self.fall = rate, fall
        self.path = work / f"{name}.pt"
        self.parameters = [one for one in module.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, rate, weight_decay=0.01, fused=True)
        self.ema = {k: v.detach().clone().float() for k, v in module.state_dict().items()}
        self.step = 0
        if self.path.exists():
            saved = torch.load(self.path, map_location=DEVICE)
            self.module.load_state_dict(saved["module"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.ema, self.step = saved["ema"], saved["step"]
        self._agree()

    def __call__(self, loss_of: Callable[[int], Tensor], every: int = 100) -> None:
        """Train to the end; `loss_of(step)` prepares a batch and returns its loss."""
        bar = tqdm(
            range(self.step, self.steps),
            self.name,
            initial=self.step,
            total=self.steps,
            mininterval=10,
            disable=RANK > 0,
        )
        mean = None
        for step in bar:
            with torch.autocast(DEVICE.type, torch.bfloat16):
                loss = loss_of(step)
            loss.backward()
            self._average()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(step)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self._follow()
            self.step = step + 1
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            if step % 10 == 0:
                bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            if self.step % every == 0 or self.step == self.steps:
                self.save()

    def _rate(self, step: int) -> float:
        left = (self.steps - step) / max(1.0, self.fall * self.steps)
        return self.rate * min(1.0, (step + 1) / 200, left)

    def _average(self) -> None:
        """Average the gradients over all processes."""
        if PROCESSES == 1:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([one.flatten() for one in gradients])
        dist.all_reduce(flat)
        flat /= PROCESSES
        parts = flat.split([one.numel() for one in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _agree(self) -> None:
        """Begin with the same weights in all processes."""
        if PROCESSES > 1:
            for value in self.module.state_dict().values():
                dist.broadcast(value, 0)

    @torch.no_grad()
    def _follow(self) -> None:
        if RANK > 0:
            return
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        current = [value.float() for value in self.module.state_dict().values()]
        torch._foreach_lerp_(list(self.ema.values()), current, 1 - decay)

    def save(self) -> None:
        """Write the state of the run; the file is replaced at once."""
        if RANK > 0:
            return
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "step": self.step,
        }
        torch.save(state, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").rename(self.path)

    def load_ema(self) -> None:
        """Put the averaged weights into the module."""
        like = self.module.state_dict()
        self.module.load_state_dict({k: v.to(like[k].dtype) for k, v in self.ema.items()})
