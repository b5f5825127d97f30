"""Parameters and multiply-accumulates of a module, without weights or data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from edgecnn.models.blocks import build
from edgecnn.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Size:
    """How big a model is.

    Attributes:
        parameters: trained numbers, as papers count: batch norm's scale and shift included, its statistics not.
        macs: multiply-accumulates of convolutions and linear layers for one image.
    """

    parameters: int
    macs: int


def size_of(spec: ModelSpec) -> Size:
    """The size of a registered model at its resolution, found on torch's meta device: no memory, no arithmetic."""
    with torch.device("meta"):
        module = build(spec).eval()
    return size_of_module(module, (3, spec.resolution, spec.resolution))


def size_of_module(module: nn.Module, shape: tuple[int, int, int]) -> Size:
    """The size of a module on torch's meta device that takes images (C, H, W)."""
    total = 0

    def count(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        total += output.numel() * math.prod(weight.shape[1:])

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        module(torch.empty(1, *shape, device="meta"))
    return Size(parameters=sum(p.numel() for p in module.parameters()), macs=total)
