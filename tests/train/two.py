"""Run by torchrun, or alone: one step's gradients in float64, written by the first process. Argument: the file."""

from __future__ import annotations

import os
import sys

import torch
from torch import distributed, nn

from edgecnn.models import resolve
from edgecnn.models.classifier import build
from edgecnn.train.distributed import Group


def main(path: str) -> None:
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size > 1:
        distributed.init_process_group("gloo")
    group = Group(rank=rank, size=size, device=torch.device("cpu"))
    torch.manual_seed(0)
    module = build(resolve("efficientnet_b0_0.35x0.5_64", num_classes=10)).double()
    x, y = torch.randn(16, 3, 64, 64, dtype=torch.float64), torch.randint(10, (16,))
    together = group.whole_batch(module).train()
    torch.manual_seed(1)  # dropout
    nn.functional.cross_entropy(together(group.share(x)), group.share(y)).backward()
    if rank == 0:
        moved = {name: value for name, value in module.named_buffers() if value.is_floating_point()}
        torch.save({**{name: p.grad for name, p in module.named_parameters()}, **moved}, path)
    if size > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
