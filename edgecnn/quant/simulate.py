"""A quantized graph in torch: real values, rounded to their grids where an integer kernel would round them.

Fast, and near: the integer oracle (``quant.reference``) and a runtime differ from it by their own roundings.
"""

from __future__ import annotations

import torch

from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Graph, QParams


def on_grid(x: torch.Tensor, quant: QParams | None) -> torch.Tensor:
    """The values rounded to the grid of a per-tensor activation, in place: what an integer kernel would hand on."""
    assert quant is not None
    scale, zero = float(quant.scale[0]), int(quant.zero_point[0])
    low, high = quant.limits
    return x.div_(scale).round_().clamp_(low - zero, high - zero).mul_(scale)


def encoded(real: torch.Tensor, quant: QParams | None) -> torch.Tensor:
    """The integers of real values on the grid of a per-tensor activation."""
    assert quant is not None
    low, high = quant.limits
    shifted = torch.round(real / float(quant.scale[0])).add_(float(quant.zero_point[0]))
    return shifted.clamp_(low, high).to(getattr(torch, quant.dtype))


def decoded(integers: torch.Tensor, quant: QParams | None) -> torch.Tensor:
    """The real values of such integers."""
    assert quant is not None
    return (integers.float() - float(quant.zero_point[0])) * float(quant.scale[0])


class SimulatedGraph:
    """A full int8 graph ready to run in torch: (N, H, W, C) float32 in, real logits out."""

    def __init__(self, graph: Graph) -> None:
        self._run = TorchGraph(graph, integers=True)
        self._grids = {t.name: t.quant for t in graph.activations()}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Run a batch."""
        return self._run(x, lambda name, value: on_grid(value.clone(), self._grids[name]))
