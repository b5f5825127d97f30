"""Gradient sensitivity: how much rounding noise on an activation moves the logits.

It is estimated by squared gradients of random sums of the logits (Hutchinson 1990).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.graph.execution import execute, released
from edgecnn.graph.interpreter import activated, laid_out, run_node, without_activation
from edgecnn.graph.ir import Graph, Node
from edgecnn.quant.executor import pieces

IMAGES = 16  # that suffice
PROBES = 2  # random sums of the logits, per image

Reals = NDArray[np.float64]


def gradient_sensitivity(
    graph: Graph, names: Collection[str], images: NDArray[np.float32], *, before: bool = True
) -> Mapping[str, Reals]:
    """Return what a little noise on each channel of activations does to the logits.

    Args:
        graph: its float values are used.
        names: of activations that nodes make.
        images: (N, H, W, C) network inputs; some ``IMAGES``, at least one.
        before: the noise is on a node's sums, and its fused activation passes it on or not; else it comes after that.

    Returns:
        Float64 ``(channels,)`` by name: sums over images, ``PROBES`` and positions of squared gradients.
    """
    total = {name: torch.zeros(graph.tensors[name].shape[-1], dtype=torch.float64) for name in names}
    constants = {t.name: laid_out(t.value) for t in graph.constants()}
    random, parts = torch.Generator().manual_seed(0), pieces(graph, 1)

    def watched(name: str, value: torch.Tensor) -> torch.Tensor:
        def add(gradient: torch.Tensor) -> None:
            over = (0, 2, 3) if gradient.ndim == 4 else (0,)
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

    def run(part: Graph, x: torch.Tensor) -> torch.Tensor:
        return execute(part, {**constants, part.inputs[0]: x}, compute, released(part))[part.outputs[0]]

    for x in torch.split(laid_out(images), 1) if total else ():
        given = [x]  # only what pieces read is kept, and each runs again for its gradients
        with torch.no_grad():
            for part in parts:
                given.append(run(part, given[-1]))
        gradients = [torch.randn(given[-1].shape, generator=random) for _ in range(PROBES)]
        for part, read in zip(reversed(parts), reversed(given[:-1]), strict=True):
            leaf = read.detach().requires_grad_()
            made = run(part, leaf)
            gradients = [torch.autograd.grad(made, leaf, g, retain_graph=True)[0] for g in gradients]
    return {name: cast(Reals, value.numpy()) for name, value in total.items()}


def channel_weights(graph: Graph, names: Collection[str], images: NDArray[np.float32]) -> Mapping[str, Reals]:
    """Return what a squared error of one value costs the logits, by its channel: float64 ``(channels,)`` by name.

    Args:
        graph: its float values are used.
        names: of activations that nodes make.
        images: (N, H, W, C) network inputs; some ``IMAGES``, at least one.
    """
    looks, found = PROBES * len(images), gradient_sensitivity(graph, names, images, before=False)
    return {name: total / (looks * math.prod(graph.tensors[name].shape[1:-1])) for name, total in found.items()}
