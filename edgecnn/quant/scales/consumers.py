"""Consumers that saturate: ranges and biases are chosen by the error after them.

A swish is nearly 0 far below 0, a sigmoid nearly constant at both ends. Steps of a grid spent there are lost, so where
nothing else reads an activation, its range is chosen by the error after that function (``observers.clipping``), and its
layer's bias is corrected by the error after it (``bias_shift``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from edgecnn.graph.ir import Graph

Nonlinearity = Callable[[torch.Tensor], torch.Tensor]
SWISHES: tuple[Nonlinearity, ...] = (F.silu, F.hardswish)


def saturating_consumer(graph: Graph, name: str) -> Nonlinearity | None:
    """Return the saturating function through which alone the network sees an activation; ``None`` where there is none.

    They are ``sigmoid``, and a swish: ``hard_swish``, or ``mul`` of the activation and its ``sigmoid``. A hard sigmoid
    is the ReLU6 of its layer (``passes.fold_constants``).
    """
    consumers = sorted(graph.consumers(name), key=lambda node: node.op)
    match [node.op for node in consumers]:
        case ["hard_swish"]:
            return F.hardswish
        case ["sigmoid"]:
            return torch.sigmoid
        case ["mul", "sigmoid"]:  # a value times its own sigmoid, which nothing else reads
            mul, sigmoid = consumers
            if set(mul.inputs) == {name, sigmoid.output} and graph.consumers(sigmoid.output) == [mul]:
                return F.silu
    return None


def around_swishes(graph: Graph) -> set[str]:
    """Return the activations that a swish alone reads, and those that it makes."""
    found = set()
    for tensor in graph.activations():
        if saturating_consumer(graph, tensor.name) in SWISHES:
            made = (n.output for n in graph.consumers(tensor.name) if n.op in ("hard_swish", "mul"))
            found |= {tensor.name, *made}
    return found
