"""Optimizers, learning rates and the moving average of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from edgecnn.train.config import TrainConfig

DROPS = (0.5, 0.75)  # of all steps, where ``step`` divides the rate by 10
MOMENTUM = 0.9


def optimizer(config: TrainConfig, module: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW or SGD over the module's parameters; decay on those of two dimensions or more."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.lr)


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Return the rate after a share ``progress`` of all steps: a linear rise, then the schedule.

    Source: ``cosine`` is Loshchilov & Hutter 2017, eq. 5, without restarts; ``step`` is He et al. 2016, section 4.2
    (32k and 48k of 64k iterations).
    """
    if progress < config.warmup:
        return config.lr * progress / config.warmup
    if config.schedule == "step":
        return config.lr * 0.1 ** sum(progress > drop for drop in DROPS)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (progress - config.warmup) / (1 - config.warmup)))


@torch.no_grad()
def average(kept: nn.Module, new: nn.Module, decay: float, step: int) -> None:
    """Move ``kept`` towards ``new``: an exponential moving average, faster in the first steps (from 1)."""
    decay = min(decay, step / (step + 9))
    for a, b in zip(kept.state_dict().values(), new.state_dict().values(), strict=True):
        if a.is_floating_point():
            a.lerp_(b, 1 - decay)
