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
    if total:
        random, network = torch.Generator().manual_seed(0), _Network(graph, total, before)
        for image in torch.split(laid_out(images), 1):
            network.back(image, random)
    return {name: cast(Reals, value.numpy()) for name, value in total.items()}


class _Network:
    """Run the float graph piece by piece: only what pieces read is kept, and each runs again for its gradients.

    Attributes:
        total: by name, float64 ``(channels,)``: the squared gradients, added up on their way back.
        before: see ``gradient_sensitivity``.
    """

    def __init__(self, graph: Graph, total: Mapping[str, torch.Tensor], before: bool) -> None:
        self.total, self.before, self._parts = total, before, pieces(graph, 1)
        self._constants = {t.name: laid_out(t.value) for t in graph.tensors.values() if t.value is not None}

    def back(self, image: torch.Tensor, random: torch.Generator) -> None:
        """Add up the gradients of ``PROBES`` sums of the logits of one NCHW image."""
        given, x = list[torch.Tensor](), image
        with torch.no_grad():
            for part in self._parts:
                given.append(x)
                x = self._run(part, x)
        gradients = [torch.randn(x.shape, generator=random) for _ in range(PROBES)]
        for part, read in zip(reversed(self._parts), reversed(given), strict=True):
            leaf = read.detach().requires_grad_()
            made = self._run(part, leaf)
            gradients = [torch.autograd.grad(made, leaf, g, retain_graph=True)[0] for g in gradients]

    def _run(self, part: Graph, x: torch.Tensor) -> torch.Tensor:
        def compute(node: Node, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
            arguments = [values[i] for i in node.inputs]
            if node.output not in self.total:
                return run_node(node, arguments)
            if not self.before:
                return self._watched(node.output, run_node(node, arguments))
            sums = self._watched(node.output, run_node(without_activation(node), arguments))
            return activated(sums.clone(), node.attrs.get("activation"))

        return execute(part, {**self._constants, part.inputs[0]: x}, compute, released(part))[part.outputs[0]]

    def _watched(self, name: str, value: torch.Tensor) -> torch.Tensor:
        def add(gradient: torch.Tensor) -> None:
            over = (0, 2, 3) if gradient.ndim == 4 else (0,)
            self.total[name].add_(gradient.square().sum(dim=over, dtype=torch.float64))

        if value.requires_grad:
            value.register_hook(add)  # type: ignore[no-untyped-call]  # torch's stub
        return value


def channel_weights(graph: Graph, names: Collection[str], images: NDArray[np.float32]) -> Mapping[str, Reals]:
    """Return what a squared error of one value costs the logits, by its channel: float64 ``(channels,)`` by name.

    Args:
        graph: its float values are used.
        names: of activations that nodes make.
        images: (N, H, W, C) network inputs; some ``IMAGES``, at least one.
    """
    looks = {name: PROBES * len(images) * math.prod(graph.tensors[name].shape[1:-1]) for name in names}
    return {
        name: total / looks[name] for name, total in gradient_sensitivity(graph, names, images, before=False).items()
    }
