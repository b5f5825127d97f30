"""Parameters and multiply-accumulates of a module, without weights or data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

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
        activations: numbers that these layers put out for one image.
    """

    parameters: int
    macs: int
    activations: int


@lru_cache(maxsize=1024)  # a study asks for the same models again
def size_of(spec: ModelSpec) -> Size:
    """The size of a registered model at its resolution, found on torch's meta device: no memory, no arithmetic."""
    with torch.device("meta"):
        module = build(spec).eval()
    return size_of_module(module, (3, spec.resolution, spec.resolution))


def size_of_module(module: nn.Module, shape: tuple[int, int, int]) -> Size:
    """The size of a module on torch's meta device that takes images (C, H, W)."""
    total = activations = 0

    def count(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal total, activations
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        activations += output.numel()
        total += output.numel() * math.prod(weight.shape[1:])

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        module(torch.empty(1, *shape, device="meta"))
    parameters = sum(p.numel() for p in module.parameters())
    return Size(parameters=parameters, macs=total, activations=activations)
