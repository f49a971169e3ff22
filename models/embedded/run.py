"""A training loop that can be stopped and taken up again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Run:
    """A training loop that can be stopped and taken up again.

    Args:
        module: what is trained; `ema` follows it with the given decay.
        steps: optimiser steps in all, on a one-cycle learning rate that peaks at `rate`.
    """

    def __init__(
        self, name: str, module: nn.Module, work: Path, steps: int, rate: float, decay: float
    ) -> None:
        self.name, self.module, self.steps, self.decay = name, module.to(DEVICE), steps, decay
        self.path = work / f"{name}.pt"
        self.optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=0.01, fused=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rate, total_steps=steps + 1, pct_start=0.06, final_div_factor=20
        )
        self.ema = {k: v.detach().clone().float() for k, v in module.state_dict().items()}
        self.step = 0
        if self.path.exists():
            saved = torch.load(self.path, map_location=DEVICE)
            self.module.load_state_dict(saved["module"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.ema, self.step = saved["ema"], saved["step"]

    def __call__(self, loss_of: Callable[[int], Tensor], every: int = 250) -> None:
        """Train to the end; `loss_of(step)` draws a batch and returns its loss."""
        bar = tqdm(range(self.step, self.steps), self.name, initial=self.step, total=self.steps)
        mean = None
        for step in bar:
            with torch.autocast(DEVICE.type, torch.bfloat16):
                loss = loss_of(step)
            loss.backward()
            nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.schedule.step()
            self._follow()
            self.step = step + 1
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            if step % 10 == 0:
                bar.set_postfix(loss=f"{mean:.4f}")
            if self.step % every == 0 or self.step == self.steps:
                self.save()

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        current = [value.float() for value in self.module.state_dict().values()]
        torch._foreach_lerp_(list(self.ema.values()), current, 1 - decay)

    def save(self) -> None:
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": self.ema,
            "step": self.step,
        }
        torch.save(state, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").rename(self.path)

    def load_ema(self) -> None:
        """Put the averaged weights into the module."""
        like = self.module.state_dict()
        self.module.load_state_dict({k: v.to(like[k].dtype) for k, v in self.ema.items()})
