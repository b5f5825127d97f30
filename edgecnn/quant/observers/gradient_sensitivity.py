"""Gradient sensitivity: how much rounding noise on an activation moves the outputs.

It is estimated by squared gradients of random sums of the outputs (Hutchinson 1990). Of several outputs each counts in
units of its own root mean square: a detector's boxes, in pixels, do not drown its scores.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.graph.batch import Batch, Fed
from edgecnn.graph.execution import execute, released
from edgecnn.graph.interpreter import TorchGraph, activated, laid_out, run_node, tensors, without_activation
from edgecnn.graph.ir import Graph, Node
from edgecnn.quant.executor import pieces

IMAGES = 16  # that suffice
PROBES = 2  # random sums of the outputs, per image

Reals = NDArray[np.float64]
Values = list[torch.Tensor]


def gradient_sensitivity(
    graph: Graph, names: Collection[str], images: Fed, *, before: bool = True
) -> Mapping[str, Reals]:
    """Return what a little noise on each channel of activations does to the outputs.

    Args:
        graph: its float values are used.
        names: of activations that nodes make.
        images: network inputs; some ``IMAGES``, at least one.
        before: the noise is on a node's sums, and its fused activation passes it on or not; else it comes after that.

    Returns:
        Float64 ``(channels,)`` by name: sums over images, ``PROBES`` and positions of squared gradients.
    """
    total = {name: torch.zeros(graph.tensors[name].shape[-1], dtype=torch.float64) for name in names}
    constants = {t.name: laid_out(t.value) for t in graph.constants()}
    random, parts = torch.Generator().manual_seed(0), pieces(graph, 1)

    def watched(name: str, value: torch.Tensor) -> torch.Tensor:
        def add(gradient: torch.Tensor) -> None:
            over = (0, 2, 3) if gradient.ndim == 4 else tuple(range(gradient.ndim - 1))
            total[name].add_(gradient.square().sum(dim=over, dtype=torch.float64))

        if value.requires_grad:
            value.register_hook(add)  # type: ignore[no-untyped-call]  # torch's stub
        return value

    def compute(node: Node, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        arguments = [values[i] for i in node.inputs]
        if node.output not in total:
            return run_node(node, arguments)
        if not before:
            return watched(node.output, run_node(node, arguments))
        sums = watched(node.output, run_node(without_activation(node), arguments))
        return activated(sums.clone(), node.attrs.get("activation"))

    def run(part: Graph, read: Values) -> Values:
        made = execute(part, {**constants, **dict(zip(part.inputs, read, strict=True))}, compute, released(part))
        return [made[name] for name in part.outputs]

    batch = Batch.of(graph.inputs, images)
    units = _units(graph, batch) if total and len(graph.outputs) > 1 else (1.0,)
    for sample in batch if total else ():
        given = [[laid_out(sample.arrays[name]) for name in graph.inputs]]
        with torch.no_grad():  # only what pieces read is kept, and each runs again for its gradients
            for part in parts:
                given.append(run(part, given[-1]))
        gradients = [
            [torch.randn(x.shape, generator=random) / unit for x, unit in zip(given[-1], units, strict=True)]
            for _ in range(PROBES)
        ]
        for part, read in zip(reversed(parts), reversed(given[:-1]), strict=True):
            leaves = [x.detach().requires_grad_() for x in read]
            made = run(part, leaves)
            gradients = [list(_gradients(made, leaves, each)) for each in gradients]
    return {name: cast(Reals, value.numpy()) for name, value in total.items()}


def _gradients(made: Values, leaves: Values, of: Values) -> Iterable[torch.Tensor]:
    """Return the gradients of the leaves, 0 where nothing depends on one; the network may be run backwards again."""
    found = torch.autograd.grad(made, leaves, of, retain_graph=True, allow_unused=True)
    return (torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True))


def _units(graph: Graph, batch: Batch) -> tuple[float, ...]:
    """Return the root mean square of each output."""
    made = TorchGraph(graph).run(tensors(batch))
    return tuple(max(float(made[name].square().mean().sqrt()), 1e-12) for name in graph.outputs)


def channel_weights(graph: Graph, names: Collection[str], images: Fed) -> Mapping[str, Reals]:
    """Return what a squared error of one value costs the outputs, by its channel: float64 ``(channels,)`` by name.

    Args:
        graph: its float values are used.
        names: of activations that nodes make.
        images: network inputs; some ``IMAGES``, at least one.
    """
    looks, found = (
        PROBES * len(Batch.of(graph.inputs, images)),
        gradient_sensitivity(graph, names, images, before=False),
    )
    return {name: total / (looks * math.prod(graph.tensors[name].shape[1:-1])) for name, total in found.items()}
