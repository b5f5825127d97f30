"""Several processes that train one network, started by ``torchrun``; a run without it is a group of one.

Each process prepares its share of every batch. torch's ``DistributedDataParallel`` averages the gradients; batch norm
looks at the whole batch, and noise is drawn for the whole batch: a group computes what one process computes, up to the
order of sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from edgecnn.errors import InputError
from edgecnn.models.modules import DropConnect
from edgecnn.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Group:
    """This process among those that train together.

    Attributes:
        rank: of this process, from 0, which alone writes files.
        size: processes.
        device: where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    def share(self, rows: Any) -> Any:
        """Return this process' part of one row per image: equal, contiguous parts in the order of ranks."""
        part = len(rows) // self.size
        return rows[self.rank * part : (self.rank + 1) * part]

    def total(self, values: list[float]) -> list[float]:
        """Return the sums over all processes, float64."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return [float(v) for v in tensor]

    def whole_batch(self, module: nn.Module) -> nn.Module:
        """Return the module as one of the group's: gradients are averaged, batch norm and dropout see the whole batch.

        Changes the module, and gives it the weights of the first process. Buffers are not sent round: batch norm makes
        the same ones everywhere.
        """
        if self.size == 1:
            return module
        if self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]  # torch's stub
        for child in module.modules():
            if type(child) is nn.BatchNorm2d:
                child.__class__ = GroupBatchNorm2d
            if type(child) is nn.Dropout:
                child.__class__ = GroupDropout
            if type(child) is DropConnect:
                child.__class__ = GroupDropConnect
        return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)


@contextmanager
def group(config: TrainConfig) -> Iterator[Group]:
    """Return the processes that torchrun started (gloo on the CPU, NCCL on CUDA), or this one alone.

    Raises:
        InputError: no CUDA where it was asked for, fp16 without it, or a batch that cannot be shared equally.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = _device(config, int(os.environ.get("LOCAL_RANK", "0")))
    if config.batch % size:
        raise InputError(f"--batch {config.batch} cannot be shared by {size} processes; give a multiple of {size}")
    if config.mixup and (config.batch // size) % 2:
        raise InputError(f"--mixup mixes pairs; give a --batch of a multiple of {2 * size} (now {config.batch})")
    if size == 1:
        yield Group(rank=0, size=1, device=device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(rank=rank, size=size, device=device)
    finally:
        distributed.destroy_process_group()


def _device(config: TrainConfig, local_rank: int) -> torch.device:
    kind = config.accelerator or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("--accelerator cuda: torch sees no CUDA device here; leave it out, or give cpu")
    if kind == "cpu" and config.precision == "fp16":
        raise InputError("--precision fp16 needs CUDA; on the CPU give bf16 or fp32")
    if kind == "cpu":
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


class _Sum(torch.autograd.Function):
    """The sum over the group; its gradient is the sum of the group's gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class GroupBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over all processes' images, of which each has as many.

    torch's ``SyncBatchNorm`` does this on CUDA only. Mean first, then the mean squared distance to it: the difference
    of mean square and squared mean would lose bits.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        size = distributed.get_world_size()
        count = x.numel() // x.shape[1] * size
        mean = _Sum.apply(x.mean((0, 2, 3))) / size  # type: ignore[no-untyped-call]  # torch's stub
        centred = x - mean.reshape(1, -1, 1, 1)
        variance = _Sum.apply(centred.square().mean((0, 2, 3))) / size  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        out: torch.Tensor = centred * scale.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)
        return out


class GroupDropout(nn.Dropout):
    """Dropout whose mask is drawn for all processes' images, of which this one uses its own rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take any shape, images first."""
        return x * _own_rows(super().forward(_ones(x, x.shape[1:]))) if self.training else x


class GroupDropConnect(DropConnect):
    """The same for dropped branches."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take any shape, images first."""
        return x * _own_rows(super().forward(_ones(x, [1] * (x.ndim - 1)))) if self.training else x


def _ones(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return torch.ones((len(x) * distributed.get_world_size(), *shape), device=x.device, dtype=x.dtype)


def _own_rows(whole: torch.Tensor) -> torch.Tensor:
    return whole.chunk(distributed.get_world_size())[distributed.get_rank()]
