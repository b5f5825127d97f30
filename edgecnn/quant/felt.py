"""How much the logits feel the rounding of activations: squared gradients of random sums of them (Hutchinson 1990)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.graph.interpreter import activated, laid_out, run_node, without_activation
from edgecnn.graph.ir import Graph

IMAGES = 16  # that show it
CHUNK = 1  # of them that goes through the network at a time: what four take is not all given back
PROBES = 2  # random sums of the logits, per image

Reals = NDArray[np.float64]


def felt(
    graph: Graph, names: Collection[str], images: NDArray[np.float32], *, before: bool = True
) -> Mapping[str, Reals]:
    """What becomes of a little noise on each channel of activations.

    Args:
        graph: its float values are used.
        names: of activations that nodes make.
        images: (N, H, W, C) network inputs; some ``IMAGES``, at least one.
        before: the noise is on a node's sums, and its fused activation passes it on or not; else it comes after that.

    Returns:
        Float64 ``(channels,)`` by name: sums over images, ``PROBES`` and positions of squared gradients.
    """
    random = torch.Generator().manual_seed(0)
    total = {name: torch.zeros(graph.tensors[name].shape[-1], dtype=torch.float64) for name in names}
    constants = {t.name: laid_out(t.value) for t in graph.tensors.values() if t.value is not None}
    for start in range(0, len(images), CHUNK):
        (source,) = graph.inputs
        values, watched = {source: laid_out(images[start : start + CHUNK])}, dict[str, torch.Tensor]()
        for node in graph:
            arguments = [values[i] if i in values else constants[i] for i in node.inputs]
            if node.output not in total:
                values[node.output] = run_node(node, arguments)
            elif before:
                sums = watched[node.output] = run_node(without_activation(node), arguments).requires_grad_()
                values[node.output] = activated(sums.clone(), node.attrs.get("activation"))
            else:
                made = watched[node.output] = run_node(node, arguments).requires_grad_()
                values[node.output] = made.clone()
        out = values[graph.outputs[0]]
        for _ in range(PROBES if watched else 0):
            probe = (out * torch.randn(out.shape, generator=random)).sum()
            found = torch.autograd.grad(probe, list(watched.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(watched, found, strict=True):
                if gradient is not None:
                    over = (0, 2, 3) if gradient.ndim == 4 else (0,)
                    total[name] += gradient.square().sum(dim=over, dtype=torch.float64)
    return {name: cast(Reals, value.numpy()) for name, value in total.items()}


def channel_weights(graph: Graph, names: Collection[str], images: NDArray[np.float32]) -> Mapping[str, Reals]:
    """What a squared error of one value costs the logits, by its channel: float64 ``(channels,)`` by name.

    Args:
        graph: its float values are used.
        names: of activations that nodes make.
        images: (N, H, W, C) network inputs; some ``IMAGES``, at least one.
    """
    looks = {name: PROBES * len(images) * math.prod(graph.tensors[name].shape[1:-1]) for name in names}
    return {name: total / looks[name] for name, total in felt(graph, names, images, before=False).items()}
